"""PNG: size, orientation, the see-through grey; every chunk must be whole and its checksum right."""

from __future__ import annotations

import struct
import zlib

from cast_sdk.decoding.header import Header, Incomplete
from cast_sdk.decoding.orientation import exif_orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_GREY = 0
_DEPTHS = (1, 2, 4, 8, 16)


def chunks(data: bytes) -> dict[bytes, list[tuple[int, int]]]:
    """(start, length) of the content of each chunk by name.

    Raises:
        Incomplete: for half a file, and for content that was changed.
    """
    found: dict[bytes, list[tuple[int, int]]] = {}
    at = len(SIGNATURE)
    while b"IEND" not in found:
        if at + 12 > len(data):
            raise Incomplete(f"{len(data)} bytes without the end of the image")
        length, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise Incomplete(f"{len(data)} bytes without the end of the image")
        needed = name[:1].isupper() or name in (b"tRNS", b"eXIf")
        if needed and zlib.crc32(data[at + 4 : at + 8 + length]) != struct.unpack_from(">I", data, at + 8 + length)[0]:
            raise Incomplete(f"a wrong checksum of the chunk {name.decode('latin-1')!r}")
        found.setdefault(name, []).append((at + 8, length))
        at += 12 + length
    return found


def read_header(data: bytes) -> Header:
    """Header of a PNG file.

    Raises:
        Incomplete: for half a file, and for content that was changed.
    """
    found = chunks(data)
    if not found.get(b"IHDR") or found[b"IHDR"][0][1] != 13:
        raise Incomplete("no header chunk")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, found[b"IHDR"][0][0])
    if bits not in _DEPTHS:
        raise Incomplete(f"{bits} bits per channel")
    orientation, transparent = 1, None
    if b"eXIf" in found:
        start, length = found[b"eXIf"][0]
        orientation = exif_orientation(data[start : start + length])
    if colour == _GREY and found.get(b"tRNS", [(0, 0)])[0][1] == 2:
        (value,) = struct.unpack_from(">H", data, found[b"tRNS"][0][0])
        transparent = value if bits == 16 else (value & (1 << bits) - 1) * 255 // ((1 << bits) - 1)
    return Header("PNG", width, height, orientation, 65535 if bits == 16 else 255, transparent=transparent)


def still(data: bytes) -> bytes:
    """The file without its animation: what a reader of plain PNG shows, and what every version of OpenCV reads."""
    found = chunks(data)
    if not _ANIMATION & found.keys():
        return data
    places = sorted(place for name, places in found.items() if name not in _ANIMATION for place in places)
    return data[: len(SIGNATURE)] + b"".join(data[start - 8 : start + length + 4] for start, length in places)
