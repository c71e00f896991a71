"""Which model is this? Family and sizes from the keys and shapes of a state dict."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cast_sdk.errors import CheckpointError
from cast_sdk.published_taxonomies import PUBLISHED, by_class_counts, published_taxonomy
from cast_sdk.registry import list_models, model_spec, with_finest
from cast_sdk.spec import Family, ModelSpec, Stage
from cast_sdk.taxonomy import HEAD_NAMES, STAGES, TaxonomyLevel


def infer_spec(
    state: Mapping[str, Tensor],
    stage: Stage | None = None,
    path: str | os.PathLike[str] = "",
    data_set: str | None = None,
) -> ModelSpec:
    """The ModelSpec of an unwrapped state dict (no `module.` prefix).

    Cluster counts and head counts are not in the weights: the published ones are assumed (12 heads; 64/32/16/8, or
    320/160/80/40 for the segmentation stage), as are the superpixel settings of the family. Heads of a taxonomy
    (H-CAST) with the class counts of a published data set bring its tree, superpixels and normalisation, and `source`
    says so; with other counts the tree is unknown.

    Args:
        state: key -> tensor.
        stage: "pretrain" or "segmentation", for `cast_seg_*`.
        path: for messages.
        data_set: the `data_set` option that an H-CAST checkpoint records.

    Raises:
        CheckpointError: when the keys are not those of a CAST model or baseline.
    """
    prefix = next((p for p in ("encoder.", "vit_backbone.") if f"{p}cls_token" in state), "")
    encoder = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not {"cls_token", "pos_embed"} <= set(encoder) or not any(key.startswith("patch_embed.") for key in encoder):
        raise CheckpointError(
            f"The checkpoint {os.fspath(path)} is not of CAST or one of its baselines.",
            found=f"keys such as {', '.join(list(state)[:4])}",
            remedy="CAST checkpoints have cls_token, pos_embed, patch_embed.* and pool1.* keys",
        )
    family = _family(encoder, prefix)
    dim = encoder["cls_token"].shape[-1]
    depths = _depths(encoder, family)
    spec = _registered(family, dim, depths)

    changes: dict[str, Any] = {}
    if family in ("cast_seg", "spml"):
        stage = "segmentation" if family == "spml" else stage or "pretrain"
        if spec.stage != stage:
            spec = dataclasses.replace(model_spec("cast_seg_small", stage=stage), name=spec.name, **_sizes(dim, depths))
        if stage == "segmentation":
            changes["position_grid"] = 64
    if "position_grid" not in changes:
        cells = encoder["pos_embed"].shape[1]
        has_class_row = spec.positions == "learned" or family in ("vit", "vit_conv")
        grid = round((cells - (1 if has_class_row else 0)) ** 0.5)
        changes["position_grid"] = grid
        if family not in ("cast_seg_deit", "segmenter"):
            changes["image_size"] = grid * spec.patch_size
    changes.update(_head(state, encoder, family))
    if f"{HEAD_NAMES[1]}.weight" in encoder:
        changes.update(_taxonomy(encoder, family, spec, data_set, path))
    return dataclasses.replace(spec, **changes)


def _family(encoder: Mapping[str, Tensor], prefix: str) -> Family:
    if prefix == "encoder.":
        return "segmenter"
    if prefix == "vit_backbone.":
        return "spml"
    fused = any(key.startswith("block_fusion.") for key in encoder)
    fixed = "pe_token" in encoder
    if any(key.startswith("pool1.") for key in encoder):
        if fused:
            return "cast_seg" if fixed else "cast_seg_deit"
        return "cast" if fixed else "cast_deit"
    if fixed:
        return "tome"
    return "vit" if "patch_embed.proj.weight" in encoder else "vit_conv"


def _depths(encoder: Mapping[str, Tensor], family: Family) -> tuple[int, ...]:
    def count(group: str) -> int:
        return len({key.split(".")[1] for key in encoder if key.startswith(f"{group}.")})

    if family in ("vit", "vit_conv", "tome"):
        return (count("blocks"),)
    return tuple(count(f"blocks{level}") for level in range(1, 5))


def _sizes(dim: int, depths: tuple[int, ...]) -> dict[str, Any]:
    return {"embed_dim": dim, "depths": depths}


def _registered(family: Family, dim: int, depths: tuple[int, ...]) -> ModelSpec:
    """The registered model of these sizes, or the small one of the family with other sizes."""
    specs = [model_spec(name) for name in list_models()]
    specs = [spec for spec in specs if spec.family == family and spec.name != "cast_tiny"]
    for spec in specs:
        if spec.embed_dim == dim and spec.depths == depths:
            return spec
    nearest = min(specs, key=lambda spec: abs(spec.embed_dim - dim))
    changes = _sizes(dim, depths)
    if family == "segmenter":
        changes["decoder_heads"] = max(1, dim // 64)
    return dataclasses.replace(nearest, name=f"{family}_custom", **changes)


def _head(state: Mapping[str, Tensor], encoder: Mapping[str, Tensor], family: Family) -> dict[str, Any]:
    if family == "segmenter":
        layers = {key.split(".")[2] for key in state if key.startswith("decoder.blocks.")}
        return {"num_classes": state["decoder.cls_emb"].shape[1], "decoder_layers": len(layers)}
    changes: dict[str, Any] = {"head": "linear", "num_classes": 0}
    if "head.weight" in encoder:
        changes["num_classes"] = encoder["head.weight"].shape[0]
    elif "head.0.weight" in encoder and "head.6.weight" in encoder:
        changes["head"] = "projector"
        changes["head_dims"] = (encoder["head.0.weight"].shape[0], encoder["head.6.weight"].shape[0])
    if family == "spml":
        last = next((key for key in ("semantic_classifier.3.bias", "semantic_classifier.0.bias") if key in state), None)
        changes["classifier"] = "none" if last is None else "softmax" if ".3." in last else "linear"
        changes["num_classes"] = 0 if last is None else state[last].shape[0]
    return changes


def _taxonomy(
    encoder: Mapping[str, Tensor], family: Family, spec: ModelSpec, data_set: str | None, path: str | os.PathLike[str]
) -> dict[str, Any]:
    """Fields of an H-CAST model. With two levels `family_head` is the coarse head, with three the middle one."""
    if family not in ("cast", "cast_deit"):
        raise CheckpointError(
            "The checkpoint has heads of a taxonomy, but is not of CAST (Hier-ViT, H-CAST's baseline, is not read).",
            found=f"{os.fspath(path)} of family {family}",
            remedy="give an H-CAST checkpoint",
        )
    counts = [encoder[f"{name}.weight"].shape[0] for name in HEAD_NAMES if f"{name}.weight" in encoder]
    name = by_class_counts(counts, data_set)
    if name is None:
        stages = STAGES[len(counts)]
        levels = [
            TaxonomyLevel(f"level {number}", count, stage)
            for number, (count, stage) in enumerate(zip(counts, stages, strict=True), 1)
        ]
        return with_finest({"taxonomy": levels})
    known = PUBLISHED[name]
    return with_finest(
        {
            "taxonomy": published_taxonomy(name),
            "superpixels": dataclasses.replace(spec.superpixels, count=known.superpixels),
            "mean": known.mean,
            "std": known.std,
            "source": f"taken for {known.title} by its class counts {'/'.join(map(str, counts))}",
        }
    )
