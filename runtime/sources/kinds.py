"""Is a file an image or a video? Its content says so, whatever its name is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Kind = Literal["image", "video"]

_IMAGE_STARTS = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"BM",  # BMP
    b"II*\0",  # TIFF, little and big endian, and BigTIFF
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"GIF87a",
    b"GIF89a",
    b"\0\0\0\x0cjP  \r\n\x87\n",  # JPEG 2000
    b"\xff\x4f\xff\x51",
    b"\xff\x0a",  # JPEG XL
    b"\0\0\0\x0cJXL \r\n\x87\n",
    b"v/1\x01",  # OpenEXR
    b"#?RADIANCE",
)
_VIDEO_STARTS = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"\0\0\x01\xba",  # MPEG program stream
    b"\0\0\x01\xb3",  # MPEG video
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"OggS",
)
_IMAGE_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_NETPBM = frozenset(b"1234567fF")
_TS_PACKET = 188  # bytes, each beginning with 0x47
HEAD = 2 * _TS_PACKET + 1  # bytes that are looked at


def kind_of(head: bytes) -> Kind | None:
    """Kind of a file from its first `HEAD` bytes; None for anything that is neither image nor video."""
    if head.startswith(_IMAGE_STARTS):
        return "image"
    if head.startswith(_VIDEO_STARTS):
        return "video"
    if head[:4] == b"RIFF":
        return {b"WEBP": "image", b"AVI ": "video"}.get(head[8:12])  # type: ignore[return-value]
    if head[4:8] == b"ftyp":
        return "image" if head[8:12] in _IMAGE_BRANDS else "video"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):  # QuickTime without a file type
        return "video"
    if len(head) > 2 and head[:1] == b"P" and head[1] in _NETPBM and head[2:3].isspace():
        return "image"
    if len(head) >= HEAD and head[0] == head[_TS_PACKET] == head[2 * _TS_PACKET] == 0x47:
        return "video"
    return None


def file_kind(path: str | os.PathLike[str]) -> Kind | None:
    """Kind of a file by its content; None where it is neither, or is empty.

    Raises:
        OSError: when it cannot be read.
    """
    with Path(path).open("rb") as file:
        return kind_of(file.read(HEAD))
