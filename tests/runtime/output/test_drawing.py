"""What must hold of the pictures; how they look is for eyes."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from cast_sdk.errors import InputError
from cast_sdk.hierarchy import Hierarchy
from cast_sdk.runtime import Runtime
from cast_sdk.runtime.output.colours import class_colours, hierarchy_colours, oklch_to_bgr
from cast_sdk.runtime.output.drawing import encode, mosaic, overlay


@pytest.fixture(scope="module")
def seg(tiny_onnx, photo):
    return Runtime(tiny_onnx, device="cpu").segment(photo)


def test_oklch_of_known_colours():
    # Red, green, blue and grey of sRGB, from Ottosson's definition.
    for (light, chroma, hue), bgr in (
        ((0.62796, 0.25768, np.deg2rad(29.234)), (0, 0, 255)),
        ((0.86644, 0.29483, np.deg2rad(142.495)), (0, 255, 0)),
        ((0.45201, 0.31321, np.deg2rad(264.052)), (255, 0, 0)),
        ((0.59987, 0.0, 0.0), (128, 128, 128)),
    ):
        assert np.abs(oklch_to_bgr(light, chroma, hue).astype(int) - bgr).max() <= 1


def test_a_segment_looks_like_a_shade_of_what_holds_it(seg):
    tree = seg.hierarchy
    colours = hierarchy_colours(tree)
    assert [len(c) for c in colours] == [tree.num_segments(level) for level in range(5)]
    lab = [cv2.cvtColor(c[None].astype(np.float32) / 255, cv2.COLOR_BGR2LAB)[0] for c in colours]
    top = tree.num_levels
    for level in range(top):
        family = tree.members[top][np.unique(tree.members[level], return_index=True)[1]]
        distance = np.linalg.norm(lab[level][:, None] - lab[top][None], axis=2)
        assert (distance.argmin(1) == family).mean() > 0.95
    assert len(np.unique(colours[1], axis=0)) == len(colours[1])


def test_colours_stay_when_other_levels_change():
    superpixels = np.arange(16).reshape(4, 4)
    fine, coarse = np.arange(16) // 2, np.arange(16) // 8
    a = hierarchy_colours(Hierarchy.from_labels(superpixels, [fine, coarse]))
    b = hierarchy_colours(Hierarchy.from_labels(superpixels, [coarse]))
    assert np.array_equal(a[-1], b[-1])


def test_one_level_has_the_size_of_the_frame(seg, photo):
    before = photo.copy()
    for level in range(5):
        picture = seg.plot(level)
        assert picture.shape == photo.shape and picture.dtype == np.uint8
    assert np.array_equal(photo, before)
    assert not np.array_equal(seg.plot(4), seg.plot(4, caption=False))
    assert not np.array_equal(seg.plot(4), seg.plot(4, boundaries=False))


def test_an_unsure_result_says_so_after_its_segments(tmp_path, build_onnx, tiny_spec, photo, monkeypatch):
    from cast_sdk.runtime.output import drawing

    titles = []
    monkeypatch.setattr(drawing, "_titled", lambda picture, text: titles.append(text) or picture)
    for threshold in (0.0, 1.0):
        spec = dataclasses.replace(tiny_spec, unsure_below=threshold)
        with Runtime(build_onnx(tmp_path / f"{threshold}.onnx", spec=spec), device="cpu") as runtime:
            runtime.segment(photo).plot(2)
    sure, unsure = titles
    assert sure.startswith("thing ") and sure.endswith("segments")
    assert unsure.startswith("level 2: ") and unsure.endswith("unsure")


def test_several_levels_stand_side_by_side(seg, photo):
    height, width = photo.shape[:2]
    assert seg.plot([1, 4]).shape == (height, 2 * width + 6, 3)
    assert seg.plot().shape == (2 * height + 6, 3 * width + 12, 3)  # the frame, superpixels and four levels


def test_boundaries_and_fills_are_where_the_segments_are():
    frame = np.full((60, 80, 3), 100, np.uint8)
    labels = np.zeros((60, 80), np.int32)
    labels[:, 40:] = 1
    labels[:5] = -1
    colours = np.array([[200, 0, 0], [0, 200, 0]], np.uint8)
    picture = overlay(frame, labels, colours, alpha=1.0)
    assert picture[30, 10].tolist() == [200, 0, 0] and picture[30, 70].tolist() == [0, 200, 0]
    assert (picture[30, 40] > 150).all()
    assert (picture[2, 10] < 60).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (2000, 11), (700, 900)])
def test_odd_sizes(tiny_onnx, shape):
    result = Runtime(tiny_onnx, device="cpu").segment(np.full((*shape, 3), 90, np.uint8))
    assert result.plot(2).shape == (*shape, 3)
    assert result.plot().dtype == np.uint8


def test_a_result_without_its_frame(seg, monkeypatch):
    monkeypatch.setattr(seg, "frame", None)
    with pytest.raises(InputError, match="no frame to draw on"):
        seg.plot()


def test_tiles_fill_a_page():
    tiles = [np.full((30, 40, 3), value, np.uint8) for value in range(6)]
    page = mosaic(tiles)
    assert page.shape == (66, 132, 3) and page[0, 0, 0] == 0 and page[-1, -1, 0] == 5
    assert mosaic(tiles[:1]).shape == (30, 40, 3)


def test_classes_get_colours_of_their_own():
    assert len(np.unique(class_colours(150), axis=0)) == 150


def test_the_dense_picture(dense_onnx, photo):
    result = Runtime(dense_onnx, device="cpu").segment(photo)
    assert result.plot("semantic").shape == photo.shape


@pytest.mark.parametrize("suffix, width", [(".webp", 16384), (".jpg", 65501)])
def test_a_picture_that_a_format_cannot_hold(suffix: str, width: int):
    with pytest.raises(InputError, match=rf"(?s){width} x 2 pixels is too large for {suffix}.*\.png"):
        encode(np.zeros((2, width, 3), np.uint8), suffix)
    assert encode(np.zeros((2, width, 3), np.uint8), ".png")
