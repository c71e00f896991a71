"""Taxonomies of classes: which class of a coarser level each class belongs to. NumPy only.

A model with a taxonomy (H-CAST) has one head per level. Levels go from fine to coarse, as the levels of segments do,
and are numbered from 1, the finest. Each head reads the class token of one stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError

HEAD_NAMES = ("head", "family_head", "manufacturer_head")  # of the published checkpoints, fine to coarse
STAGES = {2: (3, 4), 3: (2, 3, 4)}  # whose class token each head reads, by the number of levels


@dataclass(frozen=True)
class TaxonomyLevel:
    """One level of a taxonomy and its head.

    Attributes:
        name: such as "family".
        num_classes: width of its head.
        stage: 1..4, the stage whose class token the head reads.
        class_names: of its classes; those of the finest level are kept in `ModelSpec.class_names`.
        members: the class of this level that each class of the finest level belongs to. Empty for the finest level, and
            where the tree is not known.
    """

    name: str
    num_classes: int
    stage: int
    class_names: tuple[str, ...] = ()
    members: tuple[int, ...] = ()


Taxonomy = tuple[TaxonomyLevel, ...]


def check_taxonomy(levels: Sequence[TaxonomyLevel]) -> None:
    """Raises InputError for anything but two or three consistent levels, fine to coarse."""
    if len(levels) not in STAGES:
        raise InputError(f"The taxonomy has {len(levels)} levels.", remedy="give two or three")
    finest, names, stages = levels[0], [level.name for level in levels], [level.stage for level in levels]
    if len(set(names)) < len(names):
        raise InputError(f"Two levels of the taxonomy have one name: {', '.join(names)}.")
    if stages != sorted(stages) or not set(stages) <= {1, 2, 3, 4}:
        raise InputError(
            f"The levels of the taxonomy read stages {stages}.",
            remedy="give stages 1 to 4, coarser levels the same or later ones",
        )
    for level in levels:
        if level.num_classes < 2:
            raise InputError(f"The level {level.name} has {level.num_classes} class.", remedy="leave the level out")
        if level.class_names and len(level.class_names) != level.num_classes:
            raise InputError(f"{level.name} has {level.num_classes} classes and {len(level.class_names)} names.")
        if level.members and (level is finest or len(level.members) != finest.num_classes):
            raise InputError(
                f"{level.name} has {len(level.members)} members.",
                remedy="the finest level has none; a coarser one names its class for each of the "
                f"{finest.num_classes} classes of {finest.name}",
            )
        if level.members and not 0 <= min(level.members) <= max(level.members) < level.num_classes:
            raise InputError(
                f"{level.name} has members {min(level.members)}..{max(level.members)}.",
                remedy=f"its classes are 0..{level.num_classes - 1}",
            )


def path_table(levels: Sequence[TaxonomyLevel]) -> npt.NDArray[np.int32] | None:
    """The paths of a taxonomy: int32 [finest classes, levels], fine to coarse; None where the tree is not known."""
    coarser = [np.array(level.members, np.int32) for level in levels[1:]]
    if not levels or not all(len(members) for members in coarser):
        return None
    return np.stack([np.arange(levels[0].num_classes, dtype=np.int32), *coarser], 1)


def best_path(
    log_probabilities: Sequence[npt.NDArray[np.floating]], table: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """The most probable path of the tree for independent heads: int32 [..., levels], fine to coarse.

    A path's probability is the product of its classes' probabilities, over the sum of all paths'.

    Args:
        log_probabilities: per level, fine to coarse, [..., classes].
        table: of `path_table`.
    """
    return table[path_scores(log_probabilities, table).argmax(-1)]


def path_scores(
    log_probabilities: Sequence[npt.NDArray[np.floating]], table: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Log probability of every path, one per finest class, up to a constant: float64 [..., finest classes]."""
    return np.sum(
        [level.astype(np.float64)[..., table[:, index]] for index, level in enumerate(log_probabilities)], axis=0
    )


def path_probabilities(
    log_probabilities: Sequence[npt.NDArray[np.floating]], table: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Probability of every path, one per finest class; they sum to 1: float64 [..., finest classes]."""
    scores = path_scores(log_probabilities, table)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True), np.float64)


def on_a_path(classes: npt.ArrayLike, table: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Whether the classes of all levels form a path of the tree: bool [...] for [..., levels], fine to coarse."""
    predicted = np.asarray(classes)
    return (table[predicted[..., 0]] == predicted).all(-1)
