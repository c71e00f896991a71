"""The layouts of published checkpoints, in both directions: the model's state dict in one, and one from a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from cast_sdk.arguments import one_of
from cast_sdk.artifact import SPEC_KEY
from cast_sdk.errors import CheckpointError, InputError
from cast_sdk.models.base import Model
from cast_sdk.models.checkpoints.reading import named
from cast_sdk.models.moco import MoCo
from cast_sdk.system.files import atomic_write

Kind = Literal["moco", "lincls", "deit", "segmenter", "spml", "plain"]
State = dict[str, Tensor]

_BASE = "base_encoder."  # of MoCo's wrapper
_STATES = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights")
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")
_COUNTERS = ("n_averaged",)


def unwrap(raw: Mapping[str, Any], path: str | os.PathLike[str] = "") -> tuple[State, Kind]:
    """The model's own state dict in an outer dictionary, without `module.` prefixes, and the layout's kind.

    A MoCo file gives its base encoder with the projector under `head.`; an SPML file joins its two dictionaries.
    """
    if "embedding_model" in raw and "prediction_model" in raw:
        return {**_tensors(raw["embedding_model"]), **_tensors(raw["prediction_model"])}, "spml"
    found = next((raw[key] for key in _STATES if isinstance(raw.get(key), Mapping)), raw)
    state = _tensors(found)
    if not state:
        raise CheckpointError(
            f"{named(path)} holds no tensors.",
            found=f"entries {sorted(map(str, raw))[:8]}",
            remedy="give a checkpoint of CAST or one of its baselines",
        )
    state, prefixes = strip_wrappers(state)
    if any(key.startswith(_BASE) for key in state):
        return {key.removeprefix(_BASE): value for key, value in state.items() if key.startswith(_BASE)}, "moco"
    if prefixes == ["module."]:
        return state, "lincls"
    if any(key.startswith("decoder.") for key in state):
        return state, "segmenter"
    if any(key.startswith("vit_backbone.") for key in state):
        return state, "spml"
    return state, "deit" if "optimizer" in raw or "model_ema" in raw else "plain"


def strip_wrappers(state: State) -> tuple[State, list[str]]:
    """A state dict without what wrappers put before every key, and those prefixes in the order they were removed.

    Wrappers are DataParallel and AveragedModel (`module.`), torch.compile (`_orig_mod.`) and the attribute under which
    a Lightning module or another class keeps the model (`model.`, `net.`, `network.`), in any order. AveragedModel's
    counter is left out.
    """
    state = {key: value for key, value in state.items() if key not in _COUNTERS}
    removed = []
    while prefix := next((p for p in _WRAPPERS if state and all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
        removed.append(prefix)
    return state, removed


def _tensors(mapping: Mapping[str, Any]) -> State:
    return {str(key): value for key, value in mapping.items() if isinstance(value, Tensor)}


def official_state(model: nn.Module, kind: Kind) -> dict[str, Any]:
    """State dict under the key names of a published layout (`spml`: the two dictionaries)."""
    state = model.state_dict()
    if kind in ("moco", "lincls"):
        return {f"module.{key}": value for key, value in state.items()}
    if kind == "spml":
        classifier = {key: value for key, value in state.items() if key.startswith("semantic_classifier.")}
        backbone = {key: value for key, value in state.items() if key.startswith("vit_backbone.")}
        return {"embedding_model": backbone, "prediction_model": classifier}
    return dict(state)


_OUTER = {"moco": "state_dict", "lincls": "state_dict", "deit": "model", "segmenter": "model", "plain": "model"}


def official_checkpoint(model: Model, kind: Kind, **outer: Any) -> dict[str, Any]:
    """The dictionary the reference programs save, with `outer` entries (epoch, optimizer, ...) beside the model.

    One more entry, "cast_sdk", holds the ModelSpec; the reference programs ignore it.
    """
    spec = model.spec
    if (kind == "moco") != isinstance(model, MoCo) or (kind in ("segmenter", "spml") and spec.family != kind):
        raise InputError(
            f"A {type(model).__name__} of family {spec.family} cannot be saved in the layout {kind!r}.",
            remedy="moco: MoCo; lincls, deit, plain: an encoder; segmenter, spml: models of that family",
        )
    state = official_state(model, kind)
    body = state if kind == "spml" else {_OUTER[kind]: state}
    if kind in ("moco", "lincls"):
        outer = {"arch": spec.name + ("_pretrain" if spec.family == "cast_seg" else ""), **outer}
    if kind == "segmenter":
        outer = {"n_cls": spec.num_classes, **outer}
    return {**body, **outer, SPEC_KEY: spec.to_json()}


def save_official(model: Model, path: str | os.PathLike[str], kind: Kind, **outer: Any) -> None:
    """Write a checkpoint that the reference programs load. See `official_checkpoint`; the write is atomic."""
    one_of(kind, "layout", get_args(Kind))
    checkpoint = official_checkpoint(model, kind, **outer)
    with atomic_write(path) as temporary:
        torch.save(checkpoint, temporary)
