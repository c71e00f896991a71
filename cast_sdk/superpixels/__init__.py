"""SEEDS superpixels: the kernel of this package, or the contrib module of OpenCV where it was not built."""

from __future__ import annotations

from cast_sdk.superpixels.api import (
    backend,
    can_continue,
    continue_seeds,
    seeds,
    seeds_batch,
    superpixels_after,
    superpixels_for,
)
from cast_sdk.superpixels.grid import SeedsGrid, seeds_count, seeds_grid
from cast_sdk.superpixels.merging import merged_levels

__all__ = [
    "SeedsGrid",
    "backend",
    "can_continue",
    "continue_seeds",
    "merged_levels",
    "seeds",
    "seeds_batch",
    "seeds_count",
    "seeds_grid",
    "superpixels_after",
    "superpixels_for",
]
