"""The kind of a file by its first bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable

from cast_sdk.decoding import avif, jpeg, plain, png, tiff, webp
from cast_sdk.decoding.header import Header, Incomplete, Refused

_PNG_REMEDY = "convert it to PNG, for instance with: magick FILE photo.png"
# Formats that some versions of OpenCV read and others do not, or not as one picture of 8 or 16 bits.
_REFUSED = {
    b"GIF8": "a GIF",
    b"8BPS": "a Photoshop file",
    b"\xff\x0a": "a JPEG XL file",
    b"\0\0\0\x0cJXL ": "a JPEG XL file",
    b"#?RADIANCE": "a Radiance file",
    b"#?RGBE": "a Radiance file",
    b"v/1\x01": "an OpenEXR file",
    b"\x59\xa6\x6a\x95": "a Sun raster file",
    b"P7": "a PAM file",
    b"Pf": "a PFM file",
    b"PF": "a PFM file",
    b"II+\0": "a BigTIFF file",
    b"MM\0+": "a BigTIFF file",
}
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})


def read_header(data: bytes) -> Header | None:
    """What a file says of its picture; None where it is no image format of this reader's.

    Raises:
        Incomplete: where the file is damaged or ends too early, whatever its numbers make of the arithmetic.
        Refused: where it is a picture that this reader does not take.
    """
    reader = _reader(data)
    if reader is None:
        return None
    try:
        return reader(data)
    except (struct.error, LookupError, ArithmeticError, ValueError) as error:
        raise Incomplete(f"{len(data)} bytes with a header that contradicts itself or ends too early") from error


def _reader(data: bytes) -> Callable[[bytes], Header] | None:
    if data.startswith(b"\xff\xd8"):
        return jpeg.read_header
    if data.startswith(png.SIGNATURE):
        return png.read_header
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return webp.read_header
    if data[4:8] == b"ftyp":
        brands = {data[at : at + 4] for at in range(8, min(int.from_bytes(data[:4], "big"), 256), 4)}
        if brands & {b"avif", b"avis"}:
            return avif.read_header
        if brands & _HEIC:
            raise Refused("a HEIC file", "convert it to PNG, for instance with: heif-convert FILE photo.png")
        return None
    if data.startswith((plain.JP2_SIGNATURE, plain.J2K_SIGNATURE)):
        return plain.read_jpeg2000
    for start, name in _REFUSED.items():
        if data.startswith(start):
            raise Refused(name, _PNG_REMEDY)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return tiff.read_header
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return plain.read_pnm
    return plain.read_bmp if data[:2] == b"BM" and len(data) >= 26 else None
