"""WebP: size and orientation."""

from __future__ import annotations

from cast_sdk.decoding.header import Header, Incomplete
from cast_sdk.decoding.orientation import exif_orientation


def read_header(data: bytes) -> Header:
    """Header of a WebP file.

    Raises:
        Incomplete: for half a file, and for one without a picture.
    """
    stated = 8 + _number(data, 4, 4)
    if stated > len(data):
        raise Incomplete(f"{len(data)} bytes of {stated}")
    size: tuple[int, int] | None = None
    orientation, at = 1, 12
    while at + 8 <= stated:
        name, length, start = data[at : at + 4], _number(data, at + 4, 4), at + 8
        if name == b"VP8X":
            size = _number(data, start + 4, 3) + 1, _number(data, start + 7, 3) + 1
        elif name == b"VP8 " and size is None:
            size = _number(data, start + 6, 2) & 0x3FFF, _number(data, start + 8, 2) & 0x3FFF
        elif name == b"VP8L" and size is None:
            bits = _number(data, start + 1, 4)
            size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif name == b"EXIF":
            orientation = exif_orientation(data[start : start + length])
        at = start + length + length % 2
    if size is None:
        raise Incomplete("no picture in the file")
    return Header("WebP", *size, orientation)


def _number(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "little")
