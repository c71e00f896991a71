"""The eight data sets that H-CAST was published with: their taxonomies and what their pipelines fix."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cast_sdk.bundled import path
from cast_sdk.errors import InputError
from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD
from cast_sdk.taxonomy import STAGES, Taxonomy, TaxonomyLevel

INAT_MEAN = (0.466, 0.471, 0.380)
INAT_STD = (0.195, 0.194, 0.192)


@dataclass(frozen=True)
class PublishedTaxonomy:
    """A data set of the publication.

    `classes` may exceed what the table uses: the middle head of iNaturalist 2018 has two outputs without an image.
    """

    title: str
    option: str  # `data_set` of the reference program, as its checkpoints record it
    levels: tuple[str, ...]  # fine to coarse
    classes: tuple[int, ...]
    superpixels: int = 196
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


_INAT: Mapping[str, Any] = {"mean": INAT_MEAN, "std": INAT_STD}
# The reference builds BREEDS with its data set's default of 256 superpixels, whatever is asked for.
_BREEDS: Mapping[str, Any] = {
    "option": "BREEDS-HIER-SUPERPIXEL",
    "levels": ("class", "superclass"),
    "superpixels": 256,
}
_BIRDS = ("species", "family", "order")

PUBLISHED = {
    "cub200": PublishedTaxonomy("CUB-200-2011", "BIRD-HIER-SUPERPIXEL", _BIRDS, (200, 38, 13)),
    "aircraft": PublishedTaxonomy(
        "FGVC-Aircraft", "AIR-HIER-SUPERPIXEL", ("variant", "family", "manufacturer"), (100, 70, 30)
    ),
    "living17": PublishedTaxonomy("Living-17", classes=(34, 17), **_BREEDS),
    "nonliving26": PublishedTaxonomy("Non-Living-26", classes=(52, 26), **_BREEDS),
    "entity13": PublishedTaxonomy("Entity-13", classes=(130, 13), **_BREEDS),
    "entity30": PublishedTaxonomy("Entity-30", classes=(120, 30), **_BREEDS),
    "inat21_mini": PublishedTaxonomy(
        "iNaturalist 2021 mini", "INAT21-MINI-HIER-SUPERPIXEL", _BIRDS, (10000, 1103, 273), **_INAT
    ),
    "inat18": PublishedTaxonomy(
        "iNaturalist 2018",
        "INAT18-HIER-SUPERPIXEL",
        ("species", "order", "supercategory"),
        (8142, 274, 14),
        **_INAT,
    ),
}


def published_taxonomy(name: str) -> Taxonomy:
    """The taxonomy of a published data set. Classes of BREEDS are ImageNet folders; CUB and iNaturalist have no names.

    Raises:
        InputError: for an unknown name.
    """
    if name not in PUBLISHED:
        raise InputError(f"There is no published taxonomy {name!r}.", remedy=f"one of: {', '.join(PUBLISHED)}")
    known, tables = PUBLISHED[name], _tables()
    columns = ("mid", "coarse") if len(known.levels) == 3 else ("coarse",)
    members = [(), *(tuple(tables[f"{name}/{column}"].tolist()) for column in columns)]
    finest = _names(tables, f"{name}/names") or _names(tables, f"{name}/source_wnid")
    names = [finest, *(_names(tables, f"{name}/{column}_names") for column in columns)]
    parts = zip(known.levels, known.classes, STAGES[len(members)], names, members, strict=True)
    return tuple(TaxonomyLevel(*part) for part in parts)


def source_classes(name: str) -> tuple[str, ...]:
    """ImageNet folders (wnids) of a BREEDS set's source split in class order."""
    return _names(_tables(), f"{name}/source_wnid")


def by_class_counts(counts: Sequence[int], option: str | None = None) -> str | None:
    """Name of the published set with these classes per level (fine to coarse); None for another data set.

    Args:
        counts: widths of the heads.
        option: `data_set` that a checkpoint states, if it does; it must agree.
    """
    for name, known in PUBLISHED.items():
        if known.classes == tuple(counts) and option in (None, known.option):
            return name
    return None


@functools.cache
def _tables() -> dict[str, np.ndarray]:
    with np.load(path("taxonomies.npz")) as file:
        return {key: file[key] for key in file.files}


def _names(tables: Mapping[str, np.ndarray], key: str) -> tuple[str, ...]:
    return tuple(map(str, tables.get(key, ())))
