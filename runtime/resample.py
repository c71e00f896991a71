"""Antialiased resampling with exactly Pillow's arithmetic, so that evaluation equals the reference without Pillow.

Columns come first, as in every Pillow the reference can have used; Pillow 13 starts with the rows where the height
shrinks much more than the width, which does not happen when proportions are kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BITS = 22  # Pillow's fixed point for 8-bit images: 32 bits less 8 for the value and 2 for the overshoot


def resample_window(
    image: npt.NDArray[np.uint8],
    resized: tuple[int, int],
    top: int,
    left: int,
    size: tuple[int, int],
    *,
    cubic: bool = False,
) -> npt.NDArray[np.uint8]:
    """The window of `size` at (`top`, `left`) of the image resized to `resized`; other pixels are never computed.

    Columns first, then rows, each rounded to 8 bits: bilinear (triangle) or bicubic (a = -0.5) kernels whose support
    grows with the reduction.

    Args:
        image: uint8 [h, w, channels].
        resized: (height, width) of the whole resized image.
        top, left: first row and column of the window.
        size: (height, width) of the window, which lies inside.

    Returns:
        uint8 [size[0], size[1], channels], C-contiguous.
    """
    row_first, row_weights = _taps(image.shape[0], resized[0], top, size[0], cubic)
    column_first, column_weights = _taps(image.shape[1], resized[1], left, size[1], cubic)
    begin, end = int(row_first.min()), int((row_first + row_weights.shape[1]).max())
    narrow = _apply(image[begin : min(end, image.shape[0])].swapaxes(0, 1), column_first, column_weights)
    return np.ascontiguousarray(_apply(narrow.swapaxes(0, 1), row_first - begin, row_weights))


def _taps(
    length: int, resized: int, begin: int, count: int, cubic: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First source index [count] and fixed-point weights [count, taps] of the outputs begin .. begin+count-1."""
    scale = length / resized
    stretch = max(scale, 1.0)
    support = (2.0 if cubic else 1.0) * stretch
    centre = (np.arange(begin, begin + count) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), length)
    taps = np.arange(int((last - first).max()))
    distance = np.abs((first[:, None] + taps - centre[:, None] + 0.5) * (1.0 / stretch))
    if cubic:
        near = ((1.5 * distance - 2.5) * distance) * distance + 1
        far = (((distance - 5) * distance + 8) * distance - 4) * -0.5
        weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    else:
        weights = np.maximum(1.0 - distance, 0.0)
    weights = np.where(taps < (last - first)[:, None], weights, 0.0)
    weights /= weights.sum(1, keepdims=True)
    return first, np.trunc(weights * (1 << _BITS) + np.where(weights < 0, -0.5, 0.5)).astype(np.int64)


def _apply(
    source: npt.NDArray[np.uint8], first: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """Weighted sums along axis 0: [length, other, channels] -> [count, other, channels], rounded and clipped."""
    total = np.full((len(first), *source.shape[1:]), 1 << (_BITS - 1), np.int32)
    small = weights.astype(np.int32)
    for tap in range(weights.shape[1]):
        index = np.minimum(first + tap, source.shape[0] - 1)
        total += source[index].astype(np.int32) * small[:, tap, None, None]
    return np.clip(total >> _BITS, 0, 255).astype(np.uint8)
