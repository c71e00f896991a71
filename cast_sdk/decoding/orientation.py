"""How a picture is to be turned: EXIF's number, and the turning itself."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Scalar = TypeVar("Scalar", bound=np.generic)
_TAG = 0x0112
_SHORT = 3


def exif_orientation(exif: bytes) -> int:
    """Orientation 1..8 of an EXIF block (a TIFF structure, with or without "Exif" before it); 1 where it says none."""
    exif = exif.removeprefix(b"Exif\0\0")
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1

    def number(at: int, length: int) -> int:
        return int.from_bytes(exif[at : at + length], "little" if exif[:2] == b"II" else "big")

    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if entry + 12 > len(exif):
            break
        if number(entry, 2) == _TAG and number(entry + 2, 2) == _SHORT:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def upright(pixels: npt.NDArray[Scalar], orientation: int) -> npt.NDArray[Scalar]:
    """The picture [h, w, ...] as it is to be seen; a view where turning needs no copy.

    Args:
        pixels: As stored.
        orientation: 1 as stored, 2 mirrored, 3 upside down, 4 upside down and mirrored; 5 to 8 lie on their side.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels,
        6: pixels[:, ::-1],
        7: pixels[::-1, ::-1],
        8: pixels[::-1],
    }[orientation]
