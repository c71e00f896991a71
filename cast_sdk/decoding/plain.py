"""BMP, PNM and JPEG 2000: size and depth. None of them is turned."""

from __future__ import annotations

import re
import struct

from cast_sdk.decoding.avif import boxes
from cast_sdk.decoding.header import Header, Incomplete, Refused

JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
J2K_SIGNATURE = b"\xff\x4f\xff\x51"
_ENUMERATED, _SRGB, _GREY = 1, 16, 17


def read_bmp(data: bytes) -> Header:
    """Header of a BMP file."""
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("BMP", abs(width), abs(height))


def read_pnm(data: bytes) -> Header:
    """Header of a PBM, PGM or PPM file, in text or bytes."""
    wanted = 2 if data[1:2] in b"14" else 3
    tokens = re.sub(rb"#[^\r\n]*", b" ", data[2:4096]).split(None, wanted)[:wanted]
    if len(tokens) < wanted or not all(token.isdigit() for token in tokens):
        raise Incomplete("no size in the file")
    numbers = [int(token) for token in tokens]
    highest = numbers[2] if wanted == 3 else 255
    if not 0 < highest <= 65535:
        raise Incomplete(f"{highest} as the brightest value")
    return Header("PNM", numbers[0], numbers[1], highest=highest)


def read_jpeg2000(data: bytes) -> Header:
    """Header of a JPEG 2000 file or codestream.

    Raises:
        Refused: for depths, colours and channels that OpenCV does not read rightly in every version.
    """
    start = 0
    if data.startswith(JP2_SIGNATURE):
        start = -1
        for name, at, end in boxes(data, 0, len(data)):
            if name == b"jp2h":
                _check_colours(data, at, end)
            elif name == b"jp2c":
                start = at
                break
        if start < 0:
            raise Incomplete("no picture in the file")
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, start + 8)
    (components,) = struct.unpack_from(">H", data, start + 40)
    depths = {tuple(data[start + 42 + 3 * i : start + 45 + 3 * i]) for i in range(components)}
    if components not in (1, 3, 4) or not depths <= {(7, 1, 1), (15, 1, 1)} or len(depths) != 1:
        raise Refused(f"{components} channels other than 1, 3 or 4 of 8 or 16 bits each")
    return Header("JPEG 2000", x1 - x0, y1 - y0, highest=255 if depths == {(7, 1, 1)} else 65535)


def _check_colours(data: bytes, at: int, end: int) -> None:
    for name, start, _ in boxes(data, at, end):
        if name == b"pclr":
            raise Refused("a palette")
        if name == b"colr" and data[start] == _ENUMERATED:
            colours = int.from_bytes(data[start + 3 : start + 7], "big")
            if colours not in (_SRGB, _GREY):
                raise Refused(f"colours of the kind {colours}, not sRGB or grey")
