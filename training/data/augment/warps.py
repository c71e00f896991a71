"""Shears, shifts and turns of uint8 images [h, w, 3], with Pillow's kernels and within one code of its values.

A shear or a shift moves whole rows (or columns), so four taps along them do what takes sixteen in general.
"""

from __future__ import annotations

import functools
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch

from cast_sdk.training.data.augment.colours import CUT_OFF
from cast_sdk.training.data.augment.crops import Pixels

Colour = tuple[int, ...]


def moved_rows(image: Pixels, shifts: npt.NDArray[np.floating], interpolation: str, fill: Colour) -> Pixels:
    """Row y's pixel x comes from x + shifts[y] of that row; from outside the image comes `fill`."""
    height, width = image.shape[:2]
    whole = np.floor(shifts)
    columns, lines = np.arange(-1, width + 2, dtype=np.int16), np.arange(height, dtype=np.int16)[:, None]
    places = cv2.merge([columns + whole.astype(np.int16)[:, None], np.repeat(lines, len(columns), 1)])
    near = cv2.remap(image, places, np.empty(0), cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    moved = _weighted(cast("Pixels", near), _weights(shifts - whole, interpolation))
    first, end = (np.ceil(edge - 0.5 - shifts).astype(np.int16)[:, None] for edge in (0, width))
    outside = (columns[1:-2] < first) | (columns[1:-2] >= end)
    return cast("Pixels", cv2.copyTo(_plain(height, width, fill), outside.view(np.uint8), moved))


def _weighted(near: Pixels, weights: npt.NDArray[np.float32]) -> Pixels:
    """Sums of four neighbours [h, w + 3, 3] with each row's weights [4, h], cut off to whole numbers as Pillow does."""
    width = near.shape[1] - 3
    if (weights == weights[:, :1]).all():  # a shift
        sums = cv2.filter2D(near, -1, weights[:, 0][None], anchor=(0, 0), delta=CUT_OFF)
        return np.ascontiguousarray(cast("Pixels", sums)[:, :width])
    taps = torch.from_numpy(near.reshape(len(near), -1)).float().unfold(1, 3 * width, 3)
    rows = torch.from_numpy(weights)[..., None]
    total = taps[:, 0] * rows[0]
    for tap in (1, 2, 3):
        total.addcmul_(taps[:, tap], rows[tap])
    # The little more is for sums that rounding left just below a whole number.
    return total.add_(0.5 + CUT_OFF).clamp_(0, 255).byte().numpy().reshape(len(near), width, 3)


@functools.lru_cache(maxsize=4)
def _plain(height: int, width: int, colour: Colour) -> Pixels:
    return np.full((height, width, len(colour)), colour, np.uint8)


def moved_columns(image: Pixels, shifts: npt.NDArray[np.floating], interpolation: str, fill: Colour) -> Pixels:
    """`moved_rows` for columns: column x's pixel y comes from y + shifts[x]."""
    turned_over = cast("Pixels", cv2.transpose(image))
    return cast("Pixels", cv2.transpose(moved_rows(turned_over, shifts, interpolation, fill)))


def turned(image: Pixels, degrees: float, interpolation: str, fill: Colour) -> Pixels:
    """Turned about the centre, counter-clockwise; from outside the image comes `fill`."""
    from PIL import Image

    resampling = getattr(Image.Resampling, interpolation.upper())
    return np.array(Image.fromarray(image).rotate(degrees, resampling, fillcolor=fill))


def _weights(part: npt.NDArray[np.floating], interpolation: str) -> npt.NDArray[np.float32]:
    """Of the four pixels around a place which lies `part` behind the second: float32 [4, rows]."""
    if interpolation == "bilinear":
        none = np.zeros_like(part)
        weights = np.stack([none, 1 - part, part, none])
    else:  # the cubic kernel with a = -1, as Pillow has it for transformations
        square, cube = part**2, part**3
        weights = np.stack([2 * square - part - cube, 1 - 2 * square + cube, part + square - cube, cube - square])
    return weights.astype(np.float32)
