"""TIFF: which of its many kinds OpenCV reads rightly. It turns these pictures itself, in every version."""

from __future__ import annotations

import struct
from typing import Literal

from cast_sdk.decoding.header import Alpha, Header, Incomplete, Refused

_TYPES = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COLOURS, _SAMPLES, _PLANES = 254, 256, 257, 258, 262, 277, 284
_EXTRA, _KIND, _RAW = 338, 339, 50706
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_CHANNELS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_NAMES = {4: "a transparency mask", 8: "LAB colours", 9: "LAB colours", 10: "LAB colours", 32803: "a camera's raw data"}
_UNSIGNED = 1
_ALPHA: dict[int, Alpha] = {0: "none", 1: "premultiplied", 2: "straight"}


def read_header(data: bytes) -> Header:
    """Header of the first picture of a TIFF file.

    Raises:
        Refused: for floating-point values, depths, colours and layouts that OpenCV does not read, or not rightly.
        Incomplete: for a directory that lies outside of the file.
    """
    tags = directory(data)
    if _RAW in tags or data[8:10] == b"CR":
        raise Refused("a camera's raw data", "develop the raw file, for instance with: darktable-cli FILE photo.png")
    if tags.get(_SUBFILE, (0,))[0] & 1:
        raise Refused("a reduced preview as its first picture")
    if _WIDTH not in tags or _HEIGHT not in tags:
        raise Incomplete("no size in the file")
    bits, colours = tags.get(_BITS, (1,)), tags.get(_COLOURS, (-1,))[0]
    samples, kind = tags.get(_SAMPLES, (1,))[0], set(tags.get(_KIND, (_UNSIGNED,)))
    if kind - {_UNSIGNED}:
        raise Refused("values that are not unsigned integers" if 3 not in kind else "floating-point values")
    if len(set(bits)) != 1 or bits[0] not in (1, 4, 8, 16):
        raise Refused(f"{' + '.join(map(str, bits))} bits per channel")
    if colours not in _CHANNELS:
        raise Refused(_NAMES.get(colours, f"colours of the kind {colours}"))
    extra = samples - _CHANNELS[colours]
    if extra not in ((0, 1) if colours == _RGB else (0,)):
        raise Refused(f"{samples} channels")
    if bits[0] == 16 and (colours not in (_BLACK_IS_ZERO, _RGB) or (samples > 1 and tags.get(_PLANES, (1,))[0] != 1)):
        raise Refused("16 bits per channel in other than interleaved RGB or black-is-zero grey")
    alpha: Alpha = "none"
    if extra:
        alpha = _ALPHA.get(tags.get(_EXTRA, (0,))[0], "none")
        if alpha == "straight" and bits[0] == 8:
            alpha = "premultiplied"  # by libtiff, with the rounding that laying over white has
    return Header("TIFF", tags[_WIDTH][0], tags[_HEIGHT][0], highest=65535 if bits[0] == 16 else 255, alpha=alpha)


def directory(data: bytes) -> dict[int, tuple[int, ...]]:
    """Integer tags of the first directory."""
    order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start + 2 > len(data):
        raise Incomplete(f"a directory at byte {start} of {len(data)}")
    (count,) = struct.unpack_from(order + "H", data, start)
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if entry + 12 > len(data):
            raise Incomplete("a directory that is longer than the file")
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if kind in _TYPES and 0 < number <= 16:
            size = struct.calcsize(_TYPES[kind]) * number
            at = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
            if at + size <= len(data):
                tags[tag] = struct.unpack_from(f"{order}{number}{_TYPES[kind]}", data, at)
    return tags
