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

from cast_sdk.superpixels.merging import Floats, Labels, merge, neighbours

SIDE, SUPERPIXELS = 224, 196  # of the images that are merged


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
    members = merge(areas, colours, neighbours(superpixels), segments, apart, specks_first=True)
    return [member[superpixels].astype(np.uint8) for member in members]


def label_shares(superpixels: npt.NDArray[np.integer], labels: npt.NDArray[np.integer]) -> Floats:
    """[S, R]: which part of each superpixel's pixels lies in each label; zero rows for absent superpixels."""
    _, dense = np.unique(labels, return_inverse=True)
    width, count = int(dense.max()) + 1, int(superpixels.max()) + 1
    table = np.bincount(superpixels.ravel() * width + dense.ravel(), minlength=count * width).reshape(count, width)
    shares: Floats = table / np.maximum(table.sum(1, keepdims=True), 1)
    return shares
