"""AVIF: size, depth and turning of the primary picture. OpenCV decodes it and leaves it as it lies."""

from __future__ import annotations

from collections.abc import Iterator

from cast_sdk.decoding.header import Header, Incomplete, Refused

# EXIF's orientation for (quarter turns against the clock, mirroring): irot first, then imir as libavif orders them.
_MIRROR_ROWS, _MIRROR_COLUMNS = 0, 1
_ORIENTATIONS = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, _MIRROR_COLUMNS): 2, (1, _MIRROR_COLUMNS): 7, (2, _MIRROR_COLUMNS): 4, (3, _MIRROR_COLUMNS): 5,
    (0, _MIRROR_ROWS): 4, (1, _MIRROR_ROWS): 5, (2, _MIRROR_ROWS): 2, (3, _MIRROR_ROWS): 7,
}  # fmt: skip
_DEPTHS = (8, 10, 12, 16)
Box = tuple[bytes, int, int]  # name, start and end of the content


def boxes(data: bytes, at: int, end: int) -> Iterator[Box]:
    """The boxes of a stretch of the file."""
    while at + 8 <= end:
        length, name, start = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if length == 1:
            length, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        stop = end if length == 0 else at + length
        if stop < start or stop > end:
            raise Incomplete(f"a box {name.decode('latin-1')!r} that is longer than the file")
        yield name, start, stop
        at = stop


def read_header(data: bytes) -> Header:
    """Header of an AVIF file.

    Raises:
        Refused: for a crop inside the file, which OpenCV does not make.
        Incomplete: for half a file, for one without a picture, and for a depth that there is not.
    """
    meta = next((box for box in boxes(data, 0, len(data)) if box[0] == b"meta"), None)
    if meta is None:
        raise Incomplete("no description of a picture")
    inner = {name: (start, end) for name, start, end in boxes(data, meta[1] + 4, meta[2])}
    if b"pitm" not in inner or b"iprp" not in inner:
        raise Incomplete("no primary picture")
    start, _ = inner[b"pitm"]
    primary = int.from_bytes(data[start + 4 : start + (6 if data[start] == 0 else 8)], "big")
    size, bits, turns, mirror = None, 8, 0, None
    for name, at, _ in properties(data, *inner[b"iprp"], primary):
        if name == b"ispe":
            size = int.from_bytes(data[at + 4 : at + 8], "big"), int.from_bytes(data[at + 8 : at + 12], "big")
        elif name == b"av1C":
            bits = 8 if not data[at + 2] & 0x40 else 12 if data[at + 2] & 0x20 else 10
        elif name == b"pixi":
            bits = data[at + 5]
        elif name == b"clap":
            raise Refused("a crop written into the file")
        elif name == b"irot":
            turns = data[at] & 3
        elif name == b"imir":
            mirror = data[at] & 1
    if size is None:
        raise Incomplete("no size of the primary picture")
    if bits not in _DEPTHS:
        raise Incomplete(f"{bits} bits per channel")
    return Header("AVIF", *size, _ORIENTATIONS[turns, mirror], (1 << bits) - 1)


def properties(data: bytes, at: int, end: int, item: int) -> list[Box]:
    """The properties of one item, in the order in which they apply."""
    known: list[Box] = []
    numbers: list[int] = []
    for name, start, stop in boxes(data, at, end):
        if name == b"ipco":
            known = list(boxes(data, start, stop))
        elif name == b"ipma":
            numbers += _associations(data, start, item)
    return [known[number - 1] for number in numbers if 0 < number <= len(known)]


def _associations(data: bytes, start: int, item: int) -> list[int]:
    wide_items, wide_numbers = data[start] >= 1, data[start + 3] & 1
    count, at = int.from_bytes(data[start + 4 : start + 8], "big"), start + 8
    for _ in range(count):
        if at >= len(data):
            break
        length = 4 if wide_items else 2
        found, number, at = int.from_bytes(data[at : at + length], "big"), data[at + length], at + length + 1
        step = 2 if wide_numbers else 1
        if found == item:
            mask = 0x7FFF if wide_numbers else 0x7F
            return [int.from_bytes(data[at + i * step : at + (i + 1) * step], "big") & mask for i in range(number)]
        at += number * step
    return []
