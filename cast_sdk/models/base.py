"""What every model of this package has beside its layers."""

from __future__ import annotations

import dataclasses
import os
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from torch import nn

from cast_sdk.arguments import shown, whole
from cast_sdk.errors import InputError
from cast_sdk.models.saving import push_to_hub, save_pretrained
from cast_sdk.spec import ModelSpec
from cast_sdk.system.files import kind_at
from cast_sdk.taxonomy import HEAD_NAMES

if TYPE_CHECKING:
    from cast_sdk.models.cast import CastOutput

M = TypeVar("M", bound="Model")
MOST_CLASSES = 2**22
_FILES = (".onnx", ".pt", ".pth", ".safetensors", ".tar")  # ends of names that are no repository's


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
            InputError: for a model whose classes are not those of a linear layer (Segmenter, SPML, MoCo's wrapper),
                and for what is no number of classes.
        """
        if not isinstance(getattr(self, "head", None), nn.Module):
            raise self._has_no("a classifier that can be replaced")
        spec = with_classes(self.spec, num_classes)
        like = next(self.parameters())
        head: nn.Module = nn.Identity()
        if spec.num_classes:
            head = nn.Linear(spec.embed_dim, spec.num_classes, device=like.device, dtype=like.dtype)
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
        """Open a folder of `save_pretrained`, a checkpoint, a published name, "owner/repository" or an hf:// address.

        A text is a path where its first part is a folder here or its end that of a checkpoint; write
        hf://owner/repository for the repository.

        Args:
            where: what to open.
            options: of `load_model`.

        Returns:
            A model of this class; `Model.from_pretrained` opens every one.

        Raises:
            InputError: when it is a model of another class.
            As `load_model`.
        """
        text = os.fspath(where)
        model = cls.opener(f"hf://{text}" if _is_repository(text) else text, **options)
        if not isinstance(model, cls):
            kind = type(model).__name__
            raise InputError(
                f"{text} is a {kind}, not a {cls.__name__}.",
                remedy=f"{kind}.from_pretrained opens it, Model.from_pretrained whatever it is",
            )
        return model

    def _has_no(self, what: str) -> InputError:
        return InputError(f"{type(self).__name__} ({self.spec.family}) does not have {what}.")


def _is_repository(text: str) -> bool:
    """Whether a text means "owner/repository" of the hub and no path."""
    owner, _, repository = text.partition("/")
    named = bool(owner and repository) and "/" not in repository and not owner.startswith((".", "hf:"))
    return named and Path(repository).suffix.lower() not in _FILES and kind_at(owner) == "nothing"


def draw_classifier(head: nn.Linear) -> None:
    """Weights of a fresh classifier, in place."""
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)


def with_classes(spec: ModelSpec, num_classes: int) -> ModelSpec:
    """The description with another linear classifier: what was said of the old classes is gone.

    Raises:
        InputError: for families that keep their own classes, or what is no number of classes.
    """
    if spec.family in ("segmenter", "spml"):
        raise InputError(
            f"num_classes={num_classes} cannot be given for a {spec.family} model, which keeps its own classes.",
            found=f"{spec.num_classes} classes",
            remedy="load its encoder's checkpoint and fine-tune it for your classes",
        )
    try:
        num_classes = whole(num_classes, "num_classes", 0, MOST_CLASSES)
    except InputError as error:
        raise InputError(
            f"A classifier cannot have {shown(num_classes)} classes.", remedy="give 0 for a model without one"
        ) from error
    gone: dict[str, Any] = {"class_names": (), "taxonomy": (), "temperature": 1.0, "unsure_below": 0.0}
    return dataclasses.replace(spec, num_classes=num_classes, head="linear", **gone)
