"""JPEG: size, orientation, and whether the file is whole. OpenCV before 4.12 greys out the rest of half a file."""

from __future__ import annotations

from collections.abc import Iterator

from cast_sdk.decoding.header import Header, Incomplete, Refused
from cast_sdk.decoding.orientation import exif_orientation

_START_OF_SCAN = 0xDA
_EXIF = 0xE1
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, restart markers, start of image
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def read_header(data: bytes) -> Header:
    """Header of a JPEG file.

    Raises:
        Incomplete: for half a file.
        Refused: for another number of bits than 8.
    """
    if not is_whole(data):
        raise Incomplete(f"{len(data)} bytes without the end of the image")
    size: tuple[int, int] | None = None
    orientation: int | None = None
    for marker, at, length in segments(data):
        if marker == _EXIF and orientation is None and data[at : at + 6] == b"Exif\0\0":
            orientation = exif_orientation(data[at : at + length])
        elif marker in _FRAMES and size is None:
            if data[at] != 8:
                raise Refused(f"{data[at]} bits per channel")
            size = int.from_bytes(data[at + 3 : at + 5], "big"), int.from_bytes(data[at + 1 : at + 3], "big")
    if size is None:
        raise Incomplete("no picture between the markers")
    return Header("JPEG", *size, orientation or 1)


def segments(data: bytes, position: int = 2) -> Iterator[tuple[int, int, int]]:
    """(marker, start of the content, its length) up to and with the first scan; bytes between segments are skipped."""
    while (position := data.find(b"\xff", position)) >= 0 and position + 4 <= len(data):
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _WITHOUT_LENGTH or marker == 0:
            position += 2
        else:
            length = int.from_bytes(data[position + 2 : position + 4], "big")
            yield marker, position + 4, length - 2
            if marker == _START_OF_SCAN:
                return
            position += 2 + length


def is_whole(data: bytes) -> bool:
    """Whether a JPEG's pixels end with the end-of-image marker.

    The markers before the pixels are walked by their lengths, so that a thumbnail's end inside the metadata does not
    count. What comes behind the end, as some cameras write it, does not matter.

    Args:
        data: The file, beginning with FF D8.
    """
    for marker, at, _ in segments(data):
        if marker == _START_OF_SCAN:
            return data.find(b"\xff\xd9", at) >= 0
    return False
