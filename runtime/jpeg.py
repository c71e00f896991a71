"""Is a JPEG file whole? OpenCV before 4.12 fills the rest of half a file with grey and says nothing."""

from __future__ import annotations

_START_OF_SCAN = 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, restart markers, start of image


def is_whole(data: bytes) -> bool:
    """Whether a JPEG's pixels end with the end-of-image marker.

    The markers before the pixels are walked by their lengths, so that a thumbnail's end inside the metadata does not
    count. What comes behind the end, as some cameras write it, does not matter.

    Args:
        data: The file, beginning with FF D8.
    """
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return True  # no marker where one belongs: not for this function to judge
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        elif marker == _START_OF_SCAN:
            return data.find(b"\xff\xd9", position) >= 0
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False
