"""From a checkpoint to a model: every official layout, and our own safetensors format.

A file becomes a model in four steps: `read_file` (no code from the file is run), `unwrap` (outer dictionary and
prefixes), `infer_spec` (family and sizes from keys and shapes) and `fill` (aliases, positions, strict load).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import nn

from cast_sdk.arguments import as_path, one_of, shown, whole
from cast_sdk.artifact import SPEC_KEY
from cast_sdk.errors import ArtifactError, CheckpointError, InputError
from cast_sdk.hub import names as weights
from cast_sdk.models.base import MOST_CLASSES, Model, draw_classifier, with_classes
from cast_sdk.models.building import build
from cast_sdk.models.checkpoints.layouts import State, unwrap
from cast_sdk.models.checkpoints.reading import first_line, named, read_file
from cast_sdk.models.infer import infer_spec
from cast_sdk.models.layers import resize_positions
from cast_sdk.models.sampling import Sampler
from cast_sdk.spec import ModelSpec, Stage
from cast_sdk.taxonomy import HEAD_NAMES

_log = logging.getLogger(__name__)


def fill(model: Model, state: State, path: str | os.PathLike[str] = "") -> None:
    """Load a state dict strictly; block aliases may be given once or twice.

    Raises:
        CheckpointError: naming the missing, unknown and misshapen keys, or aliases that differ.
    """
    state = dict(state)
    _check_finite(state, path)
    expected = model.state_dict()
    by_storage: dict[int, list[str]] = {}
    for key, value in expected.items():
        by_storage.setdefault(value.data_ptr(), []).append(key)
    for names in by_storage.values():
        given = [name for name in names if name in state]
        if len(names) < 2 or not given:
            continue
        for name in given[1:]:
            if not torch.equal(state[given[0]], state[name]):
                raise CheckpointError(
                    f"{named(path)} holds two copies of a transformer block that differ.",
                    found=f"{given[0]} and {name}",
                    remedy="use the checkpoint as it was published",
                )
        for name in names:
            state.setdefault(name, state[given[0]])
    problems = {
        "missing": [key for key in expected if key not in state],
        "unknown": [key for key in state if key not in expected],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ],
    }
    if any(problems.values()):
        spec = model.spec
        raise CheckpointError(
            f"{named(path)} does not fit {spec.name} ({spec.family}, width {spec.embed_dim}, depths {spec.depths}).",
            found="; ".join(f"{_listing(keys)} {what}" for what, keys in problems.items() if keys),
            remedy="check that the file belongs to this model; num_classes=N replaces a classifier",
        )
    model.load_state_dict(state)


def _check_finite(state: State, path: str | os.PathLike[str]) -> None:
    """Refuse weights that are NaN or infinite, by name: every result of such a model would be."""
    bad = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise CheckpointError(
            f"{named(path)} holds weights that are NaN or infinite.",
            found=_listing(bad),
            remedy="use an earlier checkpoint: the training that wrote this one diverged",
        )


def _listing(keys: list[str], limit: int = 6) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")


def load_model(
    path: str | os.PathLike[str],
    stage: Stage | None = None,
    num_classes: int | None = None,
    *,
    keep_projector: bool = False,
    spec: ModelSpec | None = None,
    num_heads: int | None = None,
    clusters: Sequence[int] | None = None,
    sampler: Sampler = "float64",
) -> Model:
    """Open a checkpoint of CAST or a baseline, official or our own, as a model in evaluation mode.

    Args:
        path: .pth, .pth.tar or .safetensors file; a folder that `save_pretrained` wrote; a published name such as
            "cast_small.deit_in1k" (`list_models(pretrained=True)`); or an address, "hf://owner/repository" with what
            `push_to_hub` wrote there, "hf://owner/repository/file" (extra `hub`).
        stage: "pretrain" or "segmentation" for `cast_seg_*`, whose keys do not tell. Default: "pretrain" for MoCo
            files. "segmentation" brings the 320/160/80/40 clusters and resizes the positions to 64 x 64.
        num_classes: replace the classifier by a fresh one of this width; 0 removes it. The heads of a taxonomy go too.
        keep_projector: keep the projector of a MoCo file as the head instead of dropping it.
        spec: skip the inference from keys and shapes.
        num_heads: attention heads, which the weights do not tell. Default: what the file says, else as published.
        clusters: segments of the four levels, which the weights do not tell either. Default: as for `num_heads`.
        sampler: farthest-point sampler of the model.

    Raises:
        InputError: for a name that is like a published one and is none.
        CheckpointError: see `read_file`, `unwrap`, `infer_spec` and `fill`; `cast_sdk.hub.download.fetch` for names.
    """
    if stage is not None:
        one_of(stage, "stage", get_args(Stage))
    if num_classes is not None:
        whole(num_classes, "num_classes", 0, MOST_CLASSES)
    as_path(path)
    path, source = weights.resolve(path)
    raw = read_file(path)
    state, kind = unwrap(raw, path)
    if spec is None:
        spec = _own_spec(raw, path)
        if spec is None:
            spec = infer_spec(state, stage, path, _data_set(raw))
            if kind == "plain" and (num_heads is None or (spec.hierarchical and clusters is None)):
                _log.warning("%s", _assumption(spec, path))
        spec = _with_given(spec, num_heads, clusters)
    if spec.taxonomy:  # a follow-up of H-CAST trains this layer against texts and does not use it for inference
        state = {key: value for key, value in state.items() if not key.startswith("feats_layer.")}
    if kind == "moco" and not keep_projector and spec.head == "projector":
        spec = dataclasses.replace(spec, head="linear", num_classes=0)
        state = {key: value for key, value in state.items() if not key.startswith("head.")}
    if stage is not None and spec.family == "cast_seg" and spec.stage != stage:
        spec = dataclasses.replace(infer_spec(state, stage, path), name=spec.name, head=spec.head)
    if num_classes is not None and num_classes != spec.num_classes:
        spec, state = with_classes(spec, num_classes), _without_classifier(state)
    model = build(spec, sampler)
    head = getattr(model, "head", None)
    if num_classes and isinstance(head, nn.Linear) and "head.weight" not in state:
        draw_classifier(head)
        state = {**state, "head.weight": head.weight.detach(), "head.bias": head.bias.detach()}
    fill(model, _fit_positions(model, state), path)
    model.spec = weights.credited(model.spec, source)
    return model.eval()


Model.opener = staticmethod(load_model)


def _assumption(spec: ModelSpec, path: str | os.PathLike[str]) -> str:
    """What was taken for granted about a file that does not say it."""
    clusters = f" and {'/'.join(map(str, spec.clusters))} segments" if spec.hierarchical else ""
    return (
        f"{os.fspath(path)} does not say how many heads and segments its model has: taken to be {spec.num_heads} "
        f"heads{clusters}, as published. Give num_heads= and clusters= if they are others."
    )


def _with_given(spec: ModelSpec, num_heads: int | None, clusters: Sequence[int] | None) -> ModelSpec:
    changes: dict[str, Any] = {}
    if num_heads is not None:
        if spec.embed_dim % whole(num_heads, "num_heads", 1):
            raise InputError(f"A width of {spec.embed_dim} cannot be divided among {num_heads} heads.")
        changes["num_heads"] = num_heads
    if clusters is not None:
        if not isinstance(clusters, Sequence) or isinstance(clusters, str):
            raise InputError(f"clusters is {shown(clusters)}, not a sequence of numbers.")
        counts = tuple(whole(count, "clusters", 1, 2**20) for count in clusters)
        if not spec.hierarchical:
            raise InputError(f"{spec.name} has no segments, so clusters={list(counts)} means nothing for it.")
        if len(counts) != len(spec.clusters):
            raise InputError(
                f"clusters={list(counts)} is not {len(spec.clusters)} positive numbers.",
                remedy=f"give them fine to coarse, for example {list(spec.clusters)}",
            )
        changes["clusters"] = counts
    return dataclasses.replace(spec, **changes) if changes else spec


def _data_set(raw: Mapping[str, Any]) -> str | None:
    """The `data_set` option that an H-CAST checkpoint records."""
    return getattr(raw.get("args"), "data_set", None)


def _own_spec(raw: Mapping[str, Any], path: str | os.PathLike[str]) -> ModelSpec | None:
    if SPEC_KEY not in raw:
        return None
    try:
        return ModelSpec.from_json(raw[SPEC_KEY])
    except ArtifactError as error:
        raise CheckpointError(
            f"{named(path)} carries a model description that cannot be used.",
            found=first_line(error) + (f" {error.found}" if error.found else ""),
            remedy=error.remedy,
        ) from error


def _without_classifier(state: State) -> State:
    return {key: value for key, value in state.items() if key.split(".")[0] not in HEAD_NAMES}


def _fit_positions(model: Model, state: State) -> State:
    """Resize stored sin-cos positions of a segmentation backbone to the model's grid, as the reference does."""
    state = dict(state)
    expected = model.state_dict()
    for key, value in state.items():
        target = expected.get(key)
        if key.endswith("pos_embed") and target is not None and value.shape != target.shape:
            fused_fixed = model.spec.fused and model.spec.positions == "fixed"
            if fused_fixed and value.ndim == 3 and value.shape[-1] == target.shape[-1]:
                state[key] = resize_positions(value.float(), round(target.shape[1] ** 0.5))
    return state


def load_native(path: str | os.PathLike[str], sampler: Sampler = "float64") -> Model:
    """Open our own safetensors format.

    Raises:
        CheckpointError: when the file carries no ModelSpec.
    """
    raw = read_file(path)
    if SPEC_KEY not in raw:
        raise CheckpointError(
            f"{named(path)} carries no model description.",
            remedy="open it with load_model, which infers the model from keys and shapes",
        )
    return load_model(path, sampler=sampler)


def describe(path: str | os.PathLike[str]) -> str:
    """One JSON object that says what a checkpoint is, without building the model."""
    raw = read_file(path)
    state, kind = unwrap(raw, path)
    spec = _own_spec(raw, path) or infer_spec(state, None, path, _data_set(raw))
    numbers = sum(value.numel() for value in state.values())
    return json.dumps({"kind": kind, "tensors": len(state), "numbers": numbers, "spec": spec.to_dict()}, indent=2)
