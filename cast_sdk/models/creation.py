"""New models by name, with random or published weights."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from cast_sdk.errors import InputError
from cast_sdk.hub import names
from cast_sdk.models.base import Model
from cast_sdk.models.building import build
from cast_sdk.models.checkpoints.loading import load_model
from cast_sdk.models.sampling import Sampler
from cast_sdk.registry import checked, list_models, model_spec

_WITH_WEIGHTS = ("num_classes", "stage", "drop_path")


def create_model(
    name: str | os.PathLike[str], *, pretrained: bool = False, sampler: Sampler = "float64", **overrides: Any
) -> Model:
    """A model in training mode, with random or published weights.

    Args:
        name: an architecture (`list_models()`), or the name of published weights (`list_models(pretrained=True)`),
            which without `pretrained` stands for its architecture alone.
        pretrained: load the published weights. An architecture that was published with more than one is refused: give
            the name of the weights.
        sampler: farthest-point sampler, see `cast_sdk.models.sampling`.
        overrides: fields of ModelSpec, such as `embed_dim, depths, num_heads, clusters, num_classes, image_size,
            drop_path`. With published weights `num_classes` (a fresh classifier), `stage` and `drop_path`.

    Returns:
        A module `model(image, superpixels, num_superpixels=None) -> CastOutput` with `model.spec`.

    Raises:
        InputError: for an unknown name or override.
        CheckpointError, MissingDependencyError: when published weights cannot be had, see `load_model`.
    """
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    if pretrained:
        return _with_weights(name, sampler, **overrides)
    if name not in list_models() and (source := names.find(name)) is not None:
        name = source.published.model if source.published else name.partition(".")[0]
    return build(model_spec(name, **overrides), sampler).initialise()


def _with_weights(name: str, sampler: Sampler, **overrides: Any) -> Model:
    refused = [key for key in overrides if key not in _WITH_WEIGHTS]
    if refused:
        raise InputError(
            f"{', '.join(refused)} cannot be given with published weights, which fix the architecture.",
            remedy=f"give {', '.join(_WITH_WEIGHTS)}, or leave pretrained out for random weights",
        )
    drop_path = overrides.pop("drop_path", None)
    model = load_model(_only_weights(name), sampler=sampler, **overrides)
    if drop_path is not None and drop_path != model.spec.drop_path:
        state = model.state_dict()
        model = build(checked(dataclasses.replace(model.spec, drop_path=drop_path)), sampler)
        model.load_state_dict(state)
    return model.train()


def _only_weights(name: str) -> str:
    """The name of the weights of an architecture that was published with one."""
    if name not in list_models():
        return name
    own = names.of_architecture(name)
    if len(own) != 1:
        raise InputError(
            f"{name} was published with {'several' if own else 'no'} weights.",
            remedy=f"give one of: {', '.join(own)}"
            if own
            else "cast-doctor models lists the published weights; leave pretrained out for random ones",
        )
    return own[0]
