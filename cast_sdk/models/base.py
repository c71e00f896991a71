"""What every model of this package has beside its layers."""

from __future__ import annotations

import dataclasses
import os
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import nn

from cast_sdk.errors import InputError
from cast_sdk.models.saving import push_to_hub, save_pretrained
from cast_sdk.spec import ModelSpec
from cast_sdk.taxonomy import HEAD_NAMES

if TYPE_CHECKING:
    from cast_sdk.models.cast import CastOutput

M = TypeVar("M", bound="Model")


class Model(nn.Module):
    """A torch module that carries its description and knows how its random weights are drawn.

    Attributes:
        spec: the description that travels with the model into checkpoints and exported files.
    """

    opener: ClassVar[Callable[..., Model]]  # load_model, which builds on this file

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def initialise(self: M) -> M:
        """Draw random weights as the reference does, in place."""

    def forward_features(self, *inputs: Any, **more: Any) -> CastOutput:
        """A pass without the classifier; the arguments are those of the model itself.

        Returns:
            `embedding` [N,C] and, for models that have them, `levels`; `dense` holds the tokens [N,S,C] of the models
            that read them, and `logits` is None.
        """
        raise self._has_no("features of one image")

    def forward_head(self, features: CastOutput) -> CastOutput:
        """The result of `forward_features` with what the classifier adds: together they are `model(x)`."""
        raise self._has_no("a head for one image")

    def reset_classifier(self, num_classes: int) -> None:
        """Put a fresh linear classifier of `num_classes` in the place of the present one; 0 leaves none.

        Class names, taxonomy and calibration, which were of the classes that are gone, leave the description.

        Raises:
            InputError: for a model whose classes are not those of a linear layer (Segmenter, SPML, MoCo's wrapper).
        """
        if not isinstance(getattr(self, "head", None), nn.Module):
            raise self._has_no("a classifier that can be replaced")
        spec = with_classes(self.spec, num_classes)
        like = next(self.parameters())
        head: nn.Module = nn.Identity()
        if num_classes:
            head = nn.Linear(spec.embed_dim, num_classes, device=like.device, dtype=like.dtype)
            draw_classifier(head)
        for name in HEAD_NAMES[1:]:
            self._modules.pop(name, None)
        self.head = head
        self.spec = spec

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write weights, description and model card into a folder; see `cast_sdk.models.saving.save_pretrained`."""
        save_pretrained(self, folder)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Upload what `save_pretrained` writes; see `cast_sdk.models.saving.push_to_hub`."""
        return push_to_hub(self, repository, **options)

    @classmethod
    def from_pretrained(cls, where: str | os.PathLike[str], **options: Any) -> Model:
        """Open a folder of `save_pretrained`, a published name, "owner/repository" or an hf:// address.

        A folder goes before a repository of the same name.

        Args:
            where: what to open.
            options: of `load_model`.

        Raises:
            As `load_model`.
        """
        text = os.fspath(where)
        if text.count("/") == 1 and not text.startswith((".", "/", "hf:")) and not os.path.exists(text):  # noqa: PTH110
            text = f"hf://{text}"
        return cls.opener(text, **options)

    def _has_no(self, what: str) -> InputError:
        return InputError(f"{type(self).__name__} ({self.spec.family}) does not have {what}.")


def draw_classifier(head: nn.Linear) -> None:
    """Weights of a fresh classifier, in place."""
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)


def with_classes(spec: ModelSpec, num_classes: int) -> ModelSpec:
    """The description with another linear classifier: what was said of the old classes is gone.

    Raises:
        InputError: for families that keep their own classes, or a negative number.
    """
    if spec.family in ("segmenter", "spml"):
        raise InputError(
            f"num_classes={num_classes} cannot be given for a {spec.family} model, which keeps its own classes.",
            found=f"{spec.num_classes} classes",
            remedy="load its encoder's checkpoint and fine-tune it for your classes",
        )
    if num_classes < 0:
        raise InputError(f"A classifier cannot have {num_classes} classes.", remedy="give 0 for a model without one")
    gone: dict[str, Any] = {"class_names": (), "taxonomy": (), "temperature": 1.0, "unsure_below": 0.0}
    return dataclasses.replace(spec, num_classes=num_classes, head="linear", **gone)
