"""Architectures by name, and what they stand for. No torch: `cast_sdk.models` builds them."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Sequence
from typing import Any, Literal, overload

from cast_sdk.arguments import shown, whole
from cast_sdk.errors import ArtifactError, InputError
from cast_sdk.published import PUBLISHED, Published
from cast_sdk.spec import Family, ModelSpec, SuperpixelSettings
from cast_sdk.taxonomy import TaxonomyLevel, check_taxonomy

CLUSTERS = (64, 32, 16, 8)
DENSE_CLUSTERS = (320, 160, 80, 40)
_WIDTHS = {"small": 384, "base": 768}
_DEPTHS = {"": (3, 3, 3, 2), "_deep": (6, 3, 3, 3)}
_MOCO_SEEDS = SuperpixelSettings(196, bins=15, iterations=20)
_DEIT_SEEDS = SuperpixelSettings(196, bins=5, iterations=15)
_SPML_SEEDS = SuperpixelSettings(1024, bins=5, iterations=15)
_SEGMENTER_SEEDS = SuperpixelSettings(1024, bins=5, iterations=15, invert=True)


def _registry() -> dict[str, ModelSpec]:
    specs: list[ModelSpec] = []

    def add(name: str, family: Family, size: str, depths: tuple[int, ...], **options: Any) -> None:
        defaults: dict[str, Any] = {
            "num_heads": 12,
            "clusters": CLUSTERS,
            "num_classes": 1000,
            "image_size": 224,
            "position_grid": 28,
            "superpixels": _MOCO_SEEDS,
        }
        width = _WIDTHS[size]
        specs.append(ModelSpec(name, family, embed_dim=width, depths=depths, **{**defaults, **options}))

    for size in _WIDTHS:
        for suffix, depths in _DEPTHS.items():
            add(f"cast_{size}{suffix}", "cast", size, depths)
            add(f"cast_deit_{size}{suffix}", "cast_deit", size, depths, superpixels=_DEIT_SEEDS)
            add(f"cast_seg_{size}{suffix}", "cast_seg", size, depths, stage="pretrain")
            dense: dict[str, Any] = {"clusters": DENSE_CLUSTERS, "image_size": 512}
            add(f"cast_seg_deit_{size}{suffix}", "cast_seg_deit", size, depths, superpixels=_SEGMENTER_SEEDS, **dense)
            add(
                f"segmenter_cast_{size}{suffix}",
                "segmenter",
                size,
                depths,
                superpixels=_SEGMENTER_SEEDS,
                decoder_layers=2,
                decoder_heads=_WIDTHS[size] // 64,
                **{**dense, "num_classes": 150},
            )
        add(f"vit_{size}", "vit", size, (12,), clusters=(), patch_size=16, position_grid=14)
        add(f"vit_conv_{size}", "vit_conv", size, (11,), clusters=(), patch_size=16, position_grid=14)
        add(f"tome_{size}", "tome", size, (11,), clusters=())
    add(
        "spml_cast_small",
        "spml",
        "small",
        (3, 3, 3, 2),
        stage="segmentation",
        clusters=DENSE_CLUSTERS,
        num_classes=21,
        image_size=512,
        position_grid=64,
        classifier="softmax",
        superpixels=_SPML_SEEDS,
    )
    specs.append(
        ModelSpec(
            "cast_tiny",
            "cast",
            embed_dim=192,
            depths=(2, 2, 1, 1),
            num_heads=6,
            clusters=(32, 16, 8, 4),
            num_classes=64,
            image_size=96,
            position_grid=12,
            superpixels=SuperpixelSettings(64, bins=5, iterations=15),
        )
    )
    return {spec.name: spec for spec in specs}


_SPECS = _registry()


@overload
def list_models(pattern: str = "*", pretrained: Literal[False] = False) -> list[str]: ...


@overload
def list_models(pattern: str = "*", *, pretrained: Literal[True]) -> list[Published]: ...


@overload
def list_models(pattern: str, pretrained: Literal[True]) -> list[Published]: ...


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str] | list[Published]:
    """Names of architectures, or the published weights with their numbers. Needs no torch.

    Args:
        pattern: shell pattern of the names, such as "cast_seg_*" or "*.moco_in1k".
        pretrained: the published weights in place of the architectures: entries with `name`, `model`, `trained_on`,
            `results` and `uri`, which every function that takes a name takes too.
    """
    if pretrained:
        return [entry for entry in PUBLISHED if fnmatch.fnmatchcase(entry.name, pattern)]
    return sorted(fnmatch.filter(_SPECS, pattern))


def model_spec(name: str, **overrides: Any) -> ModelSpec:
    """The spec of a registered name with fields replaced.

    `image_size` also sets the position grid, except for the learned positions of the segmentation families, which are
    stored at 28 x 28 and resized. `stage="segmentation"` of a `cast_seg_*` model brings its clusters, image size and
    superpixels unless they are given. `taxonomy` brings num_classes and, where its finest level has names, class_names.

    Raises:
        InputError: for an unknown name or field.
    """
    if not isinstance(name, str) or name not in _SPECS:
        near = difflib.get_close_matches(str(name), _SPECS, 3)
        raise InputError(
            f"Unknown model {shown(name)}.",
            remedy="choose one of: " + ", ".join(near or sorted(_SPECS)),
        )
    spec = _SPECS[name]
    fields = {field.name for field in dataclasses.fields(spec)}
    for key in overrides:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            raise InputError(
                f"ModelSpec has no field {key!r}.",
                remedy=f"did you mean {near[0]!r}?" if near else "choose one of: " + ", ".join(sorted(fields)),
            )
    if spec.family == "cast_seg" and overrides.get("stage") == "segmentation":
        dense = {"clusters": DENSE_CLUSTERS, "image_size": 512, "superpixels": _SPML_SEEDS}
        overrides = {**dense, **overrides}
    if spec.family == "spml" and "classifier" in overrides and overrides["classifier"] == "none":
        overrides = {"num_classes": 0, **overrides}
    stored_grid = spec.family in ("cast_seg_deit", "segmenter")
    if "image_size" in overrides and not stored_grid:
        side = whole(overrides["image_size"], "image_size", 1)
        overrides.setdefault("position_grid", side // spec.patch_size)
    if "embed_dim" in overrides and spec.family == "segmenter":
        overrides.setdefault("decoder_heads", max(1, whole(overrides["embed_dim"], "embed_dim", 1) // 64))
    for key in ("depths", "clusters", "head_dims", "class_names", "taxonomy"):
        if isinstance(overrides.get(key), Sequence) and not isinstance(overrides[key], str):
            overrides[key] = tuple(overrides[key])
    taxonomy = overrides.get("taxonomy", ())
    if not isinstance(taxonomy, tuple) or not all(isinstance(level, TaxonomyLevel) for level in taxonomy):
        raise InputError(f"The taxonomy is {shown(taxonomy)}, not a sequence of TaxonomyLevel.")
    if taxonomy:
        overrides = with_finest(overrides)
    return checked(dataclasses.replace(spec, **overrides))


def checked(spec: ModelSpec) -> ModelSpec:
    """The spec, if a model can be built from it.

    Raises:
        InputError: a field is of another type or out of range, or fields do not go together.
    """
    if spec.taxonomy:
        check_taxonomy(spec.taxonomy)
    try:
        spec = ModelSpec.from_dict(spec.to_dict())
    except ArtifactError as error:
        found = " ".join(part for part in (error.problem, error.found) if part)
        raise InputError("Such a model cannot be made.", found=found, remedy="change what was given") from error
    if spec.image_size % spec.patch_size:
        raise InputError(
            f"An image of {spec.image_size} pixels cannot be divided into patches of {spec.patch_size}.",
            remedy=f"give a multiple of {spec.patch_size} as image_size",
        )
    return spec


def with_finest(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of ModelSpec with what the finest level of `taxonomy` says, its names moved to `class_names`."""
    finest = fields["taxonomy"][0]
    named = {"class_names": finest.class_names} if finest.class_names else {}
    levels = (dataclasses.replace(finest, class_names=()), *fields["taxonomy"][1:])
    return {"num_classes": finest.num_classes, **named, **fields, "taxonomy": levels}
