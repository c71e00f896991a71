"""Nested segments of photographs to learn levels from: merges of fine superpixels, guided by people where they drew.

    maps = nested_regions(rgb, (32, 16, 8, 4), annotations)     # one uint8 label map per level, fine to coarse

The merges are made once, at a higher resolution than the model works at, and kept beside the images
(`prepare_data.py regions`). What people drew decides first: the distance of two neighbouring regions is the share of
annotators who part them, plus their difference in colour.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

SIDE, SUPERPIXELS = 224, 196  # of the images that are merged
_LAB_SCALE = 60.0  # CIELAB difference that weighs as much as all annotators together


def nested_regions(
    rgb: npt.NDArray[np.uint8], segments: Sequence[int], annotations: Sequence[Labels] = ()
) -> list[npt.NDArray[np.uint8]]:
    """Label maps uint8 [h, w] with `segments` regions each (fewer where the image has fewer superpixels), nested.

    Args:
        rgb: uint8 [h, w, 3], at the size to merge at (`SIDE`).
        segments: numbers of regions, descending, at most 256.
        annotations: integer [h, w] each: the segments that one person drew.
    """
    from skimage.color import rgb2lab

    from cast_sdk.superpixels import seeds

    superpixels = np.unique(seeds(rgb, SUPERPIXELS, 15, 20), return_inverse=True)[1].reshape(rgb.shape[:2])
    areas = np.bincount(superpixels.ravel()).astype(np.float64)
    lab = rgb2lab(rgb).reshape(-1, 3)
    colours = np.stack([np.bincount(superpixels.ravel(), channel) for channel in lab.T], 1) / areas[:, None]
    apart = np.zeros((len(areas), len(areas)))
    for labels in annotations:
        shares = label_shares(superpixels, labels)
        apart += (1 - shares @ shares.T) / len(annotations)
    members = merge(areas, colours, neighbours(superpixels), segments, apart)
    return [member[superpixels].astype(np.uint8) for member in members]


def label_shares(superpixels: npt.NDArray[np.integer], labels: npt.NDArray[np.integer]) -> Floats:
    """[S, R]: which part of each superpixel's pixels lies in each label; zero rows for absent superpixels."""
    _, dense = np.unique(labels, return_inverse=True)
    width, count = int(dense.max()) + 1, int(superpixels.max()) + 1
    table = np.bincount(superpixels.ravel() * width + dense.ravel(), minlength=count * width).reshape(count, width)
    shares: Floats = table / np.maximum(table.sum(1, keepdims=True), 1)
    return shares


def neighbours(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """[S, S]: which labels share a side of a pixel."""
    count = int(labels.max()) + 1
    touch = np.zeros((count, count), bool)
    for a, b in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        touch[a.ravel(), b.ravel()] = True
    touch |= touch.T
    np.fill_diagonal(touch, False)
    return touch


def merge(
    areas: Floats, colours: Floats, touch: npt.NDArray[np.bool_], segments: Sequence[int], apart: Floats
) -> list[Labels]:
    """Merge the nearest neighbouring regions one pair at a time; int32 [S] region of each superpixel per number.

    Args:
        areas: pixels [S].
        colours: mean CIELAB colour [S, 3].
        touch: which are neighbours, bool [S, S].
        segments: numbers of regions to stop at, descending.
        apart: further distances [S, S], 0 to 1, averaged over the pixels of merged regions.

    The distance of small regions is reduced (by Ward's factor over the mean area), so that specks go first.
    """
    areas, colours, apart, touch = areas.copy(), colours.copy(), apart.copy(), touch.copy()
    count = len(areas)
    member = np.arange(count)
    alive = np.ones(count, bool)
    mean = areas.sum() / max(segments[-1], 1)

    def row(index: int) -> Floats:
        difference = np.linalg.norm(colours - colours[index], axis=1) / _LAB_SCALE + apart[index]
        harmonic = areas * areas[index] / (areas + areas[index])
        distance: Floats = difference * np.sqrt(np.minimum(harmonic / mean, 1) + 0.02)
        distance[~(touch[index] & alive)] = np.inf
        return distance

    distances = np.stack([row(index) for index in range(count)])
    levels = []
    for target in segments:
        while alive.sum() > target:
            i, j = np.unravel_index(int(distances.argmin()), distances.shape)
            if not np.isfinite(distances[i, j]):
                break
            weight = areas[j] / (areas[i] + areas[j])
            colours[i] += weight * (colours[j] - colours[i])
            apart[i] += weight * (apart[j] - apart[i])
            apart[:, i] = apart[i]
            areas[i] += areas[j]
            touch[i] |= touch[j]
            touch[:, i] |= touch[:, j]
            touch[i, i] = False
            alive[j] = False
            member[member == j] = i
            distances[j] = distances[:, j] = np.inf
            distances[i] = distances[:, i] = row(int(i))
        levels.append(np.unique(member, return_inverse=True)[1].astype(np.int32))
    return levels
