"""Further classes to learn from: a second head beside a model's own, which ends with the training."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cast_sdk.models.base import Model


class FurtherClasses(nn.Module):
    """A classifier and a linear layer on its embedding for `count` classes that it will not have.

    What a teacher of many classes sees in images without labels says most in the classes that the model does not have:
    without them such an image would have to be one of the model's.
    """

    def __init__(self, encoder: Model, count: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.further = nn.Linear(encoder.spec.embed_dim, count)
        nn.init.trunc_normal_(self.further.weight, std=0.02)
        nn.init.constant_(self.further.bias, -1.0)  # at first none is as likely as one that the model knows

    def forward(self, images: Tensor, superpixels: Tensor, num_superpixels: int | None = None) -> tuple[Any, Tensor]:
        """The model's output, and scores [N,count] of the further classes."""
        output = self.encoder(images, superpixels, num_superpixels=num_superpixels)
        return output, self.further(output.embedding)
