"""Every kind of frame, good and bad."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from PIL import Image

from cast_sdk.decoding.reader import read_image
from cast_sdk.errors import InputError
from cast_sdk.runtime.preprocess import Geometry, prepare

BLUE = np.zeros((8, 12, 3), np.uint8) + np.array([250, 20, 10], np.uint8)  # BGR


def first_pixel(frame) -> list[int]:
    return prepare(frame, (16, 16)).image[0, 0].tolist()


def test_the_model_sees_rgb():
    assert first_pixel(BLUE) == [10, 20, 250]


@pytest.mark.parametrize(
    "frame, expected",
    [
        (np.full((8, 12), 77, np.uint8), [77, 77, 77]),
        (np.full((8, 12, 1), 77, np.uint8), [77, 77, 77]),
        (np.dstack([BLUE, np.zeros((8, 12), np.uint8)]), [10, 20, 250]),  # cameras leave the fourth channel empty
        (BLUE[:, ::-1], [10, 20, 250]),
        (Image.fromarray(BLUE[..., ::-1]), [10, 20, 250]),
        (Image.new("L", (12, 8), 77), [77, 77, 77]),
        (Image.new("RGBA", (12, 8), (10, 20, 250, 0)), [255, 255, 255]),
        (Image.new("LA", (12, 8), (0, 51)), [204, 204, 204]),
        (Image.fromarray(np.full((8, 12), 0x8080, np.uint16)), [128, 128, 128]),
        (Image.new("P", (12, 8)), [0, 0, 0]),
    ],
)
def test_other_kinds_of_frames(frame, expected):
    assert first_pixel(frame) == expected


@pytest.mark.parametrize("shape", [(1, 1), (20000, 10), (10, 20000), (3, 224), (225, 223), (224, 224)])
@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_odd_sizes(shape, fit):
    frame = np.full((*shape, 3), 90, np.uint8)
    prepared = prepare(frame, (224, 224), fit)
    assert prepared.image.shape == (224, 224, 3) and prepared.image.flags.c_contiguous
    assert (prepared.image == 90).all()
    labels = np.arange(224 * 224, dtype=np.int32).reshape(224, 224)
    back = prepared.geometry.to_frame(labels)
    assert back.shape == shape and back.dtype == np.int32
    assert (back >= 0).all() if fit == "stretch" else (back >= 0).any()


@pytest.mark.parametrize("shape", [(100, 100), (50, 400), (400, 50)])
@pytest.mark.parametrize("size", [(32, 96), (96, 32)])
def test_a_crop_fills_rectangular_inputs(shape, size):
    prepared = prepare(np.full((*shape, 3), 90, np.uint8), size, "crop")
    assert prepared.image.shape == (*size, 3) and (prepared.image == 90).all()
    geometry = prepared.geometry
    assert geometry.top >= 0 and geometry.top + size[0] <= geometry.resized[0]
    assert geometry.left >= 0 and geometry.left + size[1] <= geometry.resized[1]


def test_a_map_goes_back_to_where_its_pixels_came_from():
    labels = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert np.array_equal(Geometry((4, 6), (2, 3), (2, 3)).to_frame(labels), labels.repeat(2, 0).repeat(2, 1))
    cropped = Geometry((2, 3), (4, 6), (2, 2), top=1, left=2).to_frame(labels[:, :2])
    assert cropped.tolist() == [[-1, 1, -1], [-1, -1, -1]]


class Unknown:
    pass


@pytest.mark.parametrize(
    "frame, words",
    [
        (None, "of the type NoneType"),
        (Unknown(), "an array, a path or a PIL image"),
        (np.zeros((8, 12, 2), np.uint8), r"shape \(8, 12, 2\)"),
        (np.zeros((3, 8, 12), np.uint8), r"channels come last: frame.transpose\(1, 2, 0\)"),
        (np.zeros((1, 8, 12, 3), np.uint8), "segment_batch"),
        (np.zeros((0, 12, 3), np.uint8), r"The frame is empty \(0 x 12\)\.\n.*did the read succeed"),
        (np.zeros((8, 12, 3), np.float32), r"\(frame \* 255\).round"),
        (np.full((8, 12, 3), np.nan), "288 values that are NaN or infinite"),
        (np.zeros((8, 12, 3), np.uint16), "frame >> 8"),
        (np.zeros((8, 12), bool), r"\* 255"),
        (np.zeros((8, 12, 3), np.int64), "clip"),
        (Image.new("F", (3, 3)), "the mode 'F'"),
    ],
)
def test_what_is_not_a_frame(frame, words):
    with pytest.raises(InputError, match=words):
        prepare(frame, (16, 16))


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is empty"),
        (b"not an image at all", "19 bytes that begin with"),
        (b"\xff\xd8\xff\xe0\0\x10", "without the end of the image"),
    ],
)
def test_files_that_are_not_images(tmp_path, content, words):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_image(str(path))


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(InputError, match="There is no image"):
        read_image(str(tmp_path / "missing.png"))
    with pytest.raises(InputError, match="is a folder"):
        read_image(str(tmp_path))


@pytest.mark.parametrize(
    "stored, expected",
    [
        (np.full((5, 7), 77, np.uint8), [77, 77, 77]),
        (np.full((5, 7, 3), [250, 20, 10], np.uint8), [250, 20, 10]),
        (np.full((5, 7, 4), [0, 0, 0, 51], np.uint8), [204, 204, 204]),
        (np.full((5, 7, 3), [65535, 257, 0], np.uint16), [255, 1, 0]),
    ],
)
def test_png_files(tmp_path, stored, expected):
    path = tmp_path / "sonst wo ü.png"
    path.write_bytes(cv2.imencode(".png", stored)[1].tobytes())
    prepared = prepare(path, (16, 16))
    assert prepared.frame[0, 0].tolist() == expected
    assert prepared.source == str(path) and set(prepared.timing) == {"decode", "preprocess"}


def test_orientation_tags_are_obeyed(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert read_image(str(path)).shape == (30, 20, 3)


def test_an_unknown_fit_names_the_known_ones():
    with pytest.raises(InputError, match=re.escape("stretch, crop")):
        prepare(BLUE, (16, 16), "contain")
