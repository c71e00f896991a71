"""Bytes, file objects and tensors give what the file gives."""

from __future__ import annotations

import io
import pathlib

import cv2
import numpy as np
import pytest
import torch

from cast_sdk import Runtime, bundled
from cast_sdk.errors import InputError
from cast_sdk.runtime.inputs.reading import read_frame

PHOTO = bundled.photos()[0]
BGR = cv2.imread(str(PHOTO))
RGB = torch.from_numpy(np.ascontiguousarray(BGR[..., ::-1]))


def same(frame) -> bool:
    pixels, _, _ = read_frame(frame)
    return pixels.dtype == np.uint8 and np.array_equal(pixels, BGR)


def test_files_in_every_form():
    data = PHOTO.read_bytes()
    with PHOTO.open("rb") as file:
        assert read_frame(file)[1] == str(PHOTO)
    with PHOTO.open("rb") as file:
        assert same(file)
    for frame in (data, bytearray(data), memoryview(data), io.BytesIO(data), str(PHOTO), pathlib.Path(PHOTO)):
        assert same(frame)
    assert read_frame(data)[1] is None and read_frame(PHOTO)[1] == str(PHOTO)


def test_a_file_object_is_read_from_where_it_stands():
    file = io.BytesIO(b"head" + PHOTO.read_bytes())
    file.seek(4)
    assert same(file)
    with pytest.raises(InputError, match=r"seek\(0\)"):
        read_frame(file)


def test_file_objects_that_cannot_be_used(monkeypatch):
    with pytest.raises(InputError, match="binary mode"):
        read_frame(io.StringIO("x"))
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(InputError, match=r"cannot be read(.|\n)*closed"):
        read_frame(closed)
    monkeypatch.setattr("cast_sdk.runtime.inputs.reading.MAX_BYTES", 10)
    with pytest.raises(InputError, match="more than"):
        read_frame(io.BytesIO(PHOTO.read_bytes()))


@pytest.mark.parametrize("data", [b"", b"no image", PHOTO.read_bytes()[:1000]])
def test_bytes_that_are_no_image(data):
    with pytest.raises(InputError, match="The image"):
        read_frame(data)


@pytest.mark.parametrize(
    "tensor",
    [
        RGB,
        RGB.permute(2, 0, 1),
        RGB.permute(2, 0, 1).contiguous() / 255,
        RGB.double() / 255,
        (RGB / 255).requires_grad_(),
    ],
    ids=["HWC uint8", "CHW uint8", "CHW float", "HWC double", "with a gradient"],
)
def test_tensors_are_rgb(tensor):
    assert same(tensor)


def test_grey_and_half_tensors():
    grey = RGB[..., 0]
    for tensor in (grey, grey[None], grey[..., None]):
        pixels, _, _ = read_frame(tensor)
        assert np.array_equal(pixels, np.repeat(grey.numpy()[..., None], 3, axis=2))
    for kind in (torch.float16, torch.bfloat16):
        pixels, _, _ = read_frame((RGB / 255).to(kind))
        assert np.abs(pixels.astype(int) - BGR).max() <= 1


@pytest.mark.parametrize(
    "tensor, message",
    [
        (torch.zeros(3, 50, 3), "first or last"),
        (torch.zeros(1, 50, 3), "first or last"),
        (torch.zeros(2, 3, 50, 50), r"segment_batch\(list\(tensor\)\)"),
        (torch.zeros(4, 50, 50), r"alpha channel out"),
        (torch.zeros(5, 50, 50), r"no axis of 1 or 3"),
        (torch.zeros(50), "not an image"),
        (torch.zeros(3, 0, 50), "empty"),
        (torch.zeros(3, 50, 50, dtype=torch.int64), r"to\(torch.uint8\)"),
        (torch.full((3, 50, 50), 200.0), r"round\(\)"),
        (torch.full((3, 50, 50), -0.5), "before its normalisation"),
        (torch.full((3, 50, 50), torch.nan), "NaN"),
    ],
)
def test_tensors_that_are_refused(tensor, message):
    with pytest.raises(InputError, match=message):
        read_frame(tensor)


def test_a_result_does_not_depend_on_the_form():
    with Runtime() as runtime:
        results = runtime.segment_batch([PHOTO, PHOTO.read_bytes(), io.BytesIO(PHOTO.read_bytes()), BGR, RGB])
        assert runtime.segment_batch([]) == []
    for result in results:
        assert np.array_equal(result.embedding, results[0].embedding)
        assert np.array_equal(result.labels(2), results[0].labels(2))
    assert "decode" in results[1].timing and "decode" not in results[4].timing


def test_what_is_no_frame_is_told_what_is():
    with pytest.raises(InputError, match=r"type int(.|\n)*torch tensor"):
        read_frame(7)
