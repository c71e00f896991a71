"""Antialiased resampling with exactly Pillow's arithmetic: what the network sees is what training and evaluation show.

Columns come first, as in every Pillow the reference can have used; Pillow 13 starts with the rows where the height
shrinks much more than the width.
"""

from __future__ import annotations

import ctypes
import functools

import numpy as np
import numpy.typing as npt

from cast_sdk.superpixels.kernels import native_library

_BITS = 22  # Pillow's fixed point for 8-bit images: 32 bits less 8 for the value and 2 for the overshoot

Taps = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]


def resample_window(
    image: npt.NDArray[np.uint8],
    resized: tuple[int, int],
    top: int,
    left: int,
    size: tuple[int, int],
    *,
    cubic: bool = False,
    reverse: bool = False,
) -> npt.NDArray[np.uint8]:
    """The window of `size` at (`top`, `left`) of the image resized to `resized`; other pixels are never computed.

    Columns first, then rows, each rounded to 8 bits: bilinear (triangle) or bicubic (a = -0.5) kernels whose support
    grows with the reduction.

    Args:
        image: uint8 [h, w, 3].
        resized: (height, width) of the whole resized image.
        top, left: first row and column of the window.
        size: (height, width) of the window, which lies inside.
        reverse: swap the first and the last channel, as from BGR to RGB.

    Returns:
        uint8 [size[0], size[1], 3], C-contiguous.
    """
    if resized == image.shape[:2]:  # weights of one pixel alone
        window = image[top : top + size[0], left : left + size[1]]
        return np.array(window[..., ::-1] if reverse else window, order="C")
    rows = _taps(image.shape[0], resized[0], top, size[0], cubic)
    columns = _taps(image.shape[1], resized[1], left, size[1], cubic)
    begin = int(rows[0].min())
    end = min(int(rows[0].max()) + rows[1].shape[1], image.shape[0])
    library = _library()
    if library is not None:
        return _compiled(library, image, rows, columns, (begin, end), reverse)
    narrow = _apply(image[begin:end].swapaxes(0, 1), *columns)
    out = _apply(narrow.swapaxes(0, 1), rows[0] - begin, rows[1])
    return np.ascontiguousarray(out[..., ::-1] if reverse else out)


@functools.lru_cache(maxsize=64)
def _taps(length: int, resized: int, begin: int, count: int, cubic: bool) -> Taps:
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
    weights /= np.cumsum(weights, 1)[:, -1:]  # added one after the other, as Pillow adds them
    fixed = np.trunc(weights * (1 << _BITS) + np.where(weights < 0, -0.5, 0.5)).astype(np.int32)
    found = first.astype(np.int32), np.ascontiguousarray(fixed)
    for array in found:
        array.flags.writeable = False
    return found


def _apply(
    source: npt.NDArray[np.uint8], first: npt.NDArray[np.int32], weights: npt.NDArray[np.int32]
) -> npt.NDArray[np.uint8]:
    """Weighted sums along axis 0: [length, other, channels] -> [count, other, channels], rounded and clipped."""
    total = np.full((len(first), *source.shape[1:]), 1 << (_BITS - 1), np.int32)
    for tap in range(weights.shape[1]):
        index = np.minimum(first + tap, source.shape[0] - 1)
        total += source[index].astype(np.int32) * weights[:, tap, None, None]
    return np.clip(total >> _BITS, 0, 255).astype(np.uint8)


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled library; None where there is none, or one from before it had this function."""
    library = native_library()
    if library is None or not hasattr(library, "cast_resample"):
        return None
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    taps = (pointer, pointer, integer, integer)
    library.cast_resample.argtypes = (
        pointer,
        ctypes.c_int64,
        integer,
        *taps,
        *taps,
        integer,
        integer,
        integer,
        pointer,
    )
    library.cast_resample.restype = integer
    return library


def _compiled(
    library: ctypes.CDLL,
    image: npt.NDArray[np.uint8],
    rows: Taps,
    columns: Taps,
    span: tuple[int, int],
    reverse: bool,
) -> npt.NDArray[np.uint8]:
    if image.strides[1:] != (3, 1):  # rows may lie apart, as in a cut from a larger image
        image = np.ascontiguousarray(image)
    out = np.empty((len(rows[0]), len(columns[0]), 3), np.uint8)
    arguments = [
        value
        for first, weights in (rows, columns)
        for value in (first.ctypes.data, weights.ctypes.data, weights.shape[1], len(first))
    ]
    code = library.cast_resample(
        image.ctypes.data, image.strides[0], image.shape[1], *arguments, *span, reverse, out.ctypes.data
    )
    if code:
        raise MemoryError("no memory to resize an image")
    return out
