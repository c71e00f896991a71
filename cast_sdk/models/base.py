"""What every model of this package has beside its layers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from torch import nn

from cast_sdk.spec import ModelSpec

M = TypeVar("M", bound="Model")


class Model(nn.Module):
    """A torch module that carries its description and knows how its random weights are drawn.

    Attributes:
        spec: the description that travels with the model into checkpoints and exported files.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def initialise(self: M) -> M:
        """Draw random weights as the reference does, in place."""
