"""Half a JPEG is refused, whatever the version of OpenCV."""

import cv2
import numpy as np
import pytest

from cast_sdk.decoding.jpeg import is_whole
from cast_sdk.decoding.reader import read_image
from cast_sdk.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
FLAGS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
}


def encoded(kind: str) -> bytes:
    return cv2.imencode(".jpg", PIXELS, FLAGS[kind])[1].tobytes()


def with_thumbnail(data: bytes) -> bytes:
    """The same picture with a whole small JPEG in its metadata, as cameras write it."""
    small = b"Exif\0\0" + encoded("baseline")
    return data[:2] + b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small + data[2:]


@pytest.mark.parametrize("kind", FLAGS)
def test_whole_and_half(kind, tmp_path):
    data = encoded(kind)
    for whole in (data, with_thumbnail(data), data + b"a maker's notes"):
        assert is_whole(whole)
    for half in (data[: len(data) // 2], data[:-2], with_thumbnail(data)[:-2], data[:20]):
        assert not is_whole(half)
    (tmp_path / "half.jpg").write_bytes(with_thumbnail(data)[: -len(data) // 2])
    with pytest.raises(InputError, match=r"half\.jpg"):
        read_image(str(tmp_path / "half.jpg"))
    (tmp_path / "whole.jpg").write_bytes(with_thumbnail(data))
    assert read_image(str(tmp_path / "whole.jpg")).shape == PIXELS.shape
