"""From the pixels as a decoder gives them to 8 bits without transparency."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
_ROWS = 4_000_000  # pixels that are composed at a time


def to_8_bits(values: npt.NDArray[np.unsignedinteger], highest: int) -> Pixels:
    """`highest` becomes 255, and what lies below it the nearest share of it.

    Args:
        values: uint8 or uint16.
        highest: The value of full brightness, 1..65535.
    """
    if values.dtype == np.uint8 and highest == 255:
        return values.astype(np.uint8, copy=False)
    stored = np.arange(int(np.iinfo(values.dtype).max) + 1, dtype=np.int64)
    table = np.minimum((stored * 510 + highest) // (2 * highest), 255).astype(np.uint8)
    return table[values]


def over_white(colour: Pixels, alpha: Pixels, *, premultiplied: bool = False) -> Pixels:
    """Colours [h, w, 3] of this opacity [h, w] on white paper, rounded to the nearest.

    Args:
        premultiplied: The colours are multiplied by their opacity already.
    """
    out = np.empty_like(colour)
    step = max(1, _ROWS // max(1, colour.shape[1]))
    for top in range(0, len(colour), step):
        rows = slice(top, top + step)
        opacity = alpha[rows, :, None].astype(np.uint16)
        values = colour[rows].astype(np.uint16)
        if premultiplied:
            out[rows] = np.minimum(values + (255 - opacity), 255)
        else:
            out[rows] = (values * opacity + 255 * (255 - opacity) + 127) // 255
    return out
