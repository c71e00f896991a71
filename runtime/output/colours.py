"""Colours for nested segments: a family of hues per coarse segment, shades of it for what lies inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cast_sdk.hierarchy import Hierarchy

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation

_START_HUE = 0.70  # radians
_CHROMA = 0.135
_KEEP = 0.78  # part of its parent's hue range that the children share: the rest keeps families apart


def hierarchy_colours(hierarchy: Hierarchy) -> list[npt.NDArray[np.uint8]]:
    """BGR colours [n_l, 3] of the segments of every level, superpixels first.

    The coarsest segments divide the hue circle in the order of their direction from the image's centre, so that a
    slowly changing scene keeps its colours. Inside, children divide their parent's range of hue and differ in
    lightness: a segment always looks like a shade of what holds it.
    """
    levels = hierarchy.num_levels
    count = hierarchy.num_segments(levels)
    rank = np.empty(count, np.int64)
    rank[np.argsort(_directions(hierarchy, levels), kind="stable")] = np.arange(count)
    centre = _START_HUE + rank * (2 * np.pi / count)
    width = np.full(count, 2 * np.pi / count)
    light = np.where(rank % 2 == 0, 0.70, 0.78) if count > 1 else np.full(1, 0.74)
    colours = [oklch_to_bgr(light, _CHROMA, centre)]
    for level in range(levels - 1, -1, -1):
        parents = hierarchy.parents(level)
        siblings = np.bincount(parents, minlength=len(centre))[parents]
        place = _rank_within(parents, _directions(hierarchy, level))
        slot = width[parents] * _KEEP / siblings
        centre = centre[parents] + (place - (siblings - 1) / 2) * slot
        # Neighbours in hue get distant shades: even places light, odd ones dark.
        step = 0.05 if level else 0.03
        shade = np.where(siblings > 1, np.where(place % 2 == 0, step, -step), 0.0)
        light = np.clip(light[parents] + shade, 0.55, 0.88)
        width = slot
        colours.append(oklch_to_bgr(light, _CHROMA, centre))
    return colours[::-1]


def segment_colours(result: Segmentation) -> list[npt.NDArray[np.uint8]]:
    """BGR colours [n_l, 3] of the segments of a result at every level: its tracks' colours where it has tracks."""
    if result.tracking is not None and result.tracking.shades is not None:
        return [oklch_to_bgr(light, _CHROMA, hue) for light, hue in result.tracking.shades()]
    assert result.hierarchy is not None
    return hierarchy_colours(result.hierarchy)


def class_colours(count: int) -> npt.NDArray[np.uint8]:
    """BGR colours [count, 3] for unrelated classes, told apart by hue and lightness."""
    index = np.arange(count)
    return oklch_to_bgr(0.62 + 0.09 * (index % 3), 0.145, index * 2.39996)  # the golden angle


def oklch_to_bgr(light: npt.ArrayLike, chroma: npt.ArrayLike, hue: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """sRGB in BGR order, uint8 [..., 3], from OKLCH (Ottosson 2020): lightness 0..1, chroma, hue in radians.

    Colours outside sRGB are clipped per channel.
    """
    lightness, chroma, hue = np.broadcast_arrays(np.asarray(light, float), chroma, hue)
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=-1,
    )
    to_linear_bgr = np.array(
        [
            [-0.0041960863, -0.7034186147, 1.7076147010],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [4.0767416621, -3.3077115913, 0.2309699292],
        ]
    )
    linear = np.clip(cones**3 @ to_linear_bgr.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


def _directions(hierarchy: Hierarchy, level: int) -> npt.NDArray[np.float64]:
    """Direction of each segment's centre of mass, seen from the image's centre, in radians from "up"."""
    labels = hierarchy.labels(level)
    height, width = labels.shape
    area = np.maximum(hierarchy.areas(level), 1)
    rows, columns = np.mgrid[:height, :width]
    y = np.bincount(labels.ravel(), rows.ravel()) / area - (height - 1) / 2
    x = np.bincount(labels.ravel(), columns.ravel()) / area - (width - 1) / 2
    return np.arctan2(x, -y)


def _rank_within(groups: npt.NDArray[np.int32], values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rank of each value among those of its group."""
    order = np.lexsort((values, groups))
    first = np.searchsorted(groups[order], groups[order])
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - first
    return rank
