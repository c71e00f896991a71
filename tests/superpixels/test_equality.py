"""The kernel gives OpenCV's labels, pixel by pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opencv_reference import reference_from_environment

from cast_sdk.errors import InputError
from cast_sdk.superpixels import kernels, seeds_grid

RECIPES = ((15, 20), (5, 15))  # histogram bins, iterations


@pytest.fixture(scope="module")
def reference():
    if kernels.native_library() is None:
        pytest.skip("the compiled kernel is not in this installation")
    process = reference_from_environment()
    yield process
    process.close()


def native_labels(lab, count, bins, iterations):
    height, width = lab.shape[:2]
    kernel = kernels.NativeKernel(height, width, count, bins, iterations)
    labels = np.empty((height, width), np.int32)
    kernel(lab, labels)
    return labels


def photo(path, size=None):
    image = cv2.imread(str(path))
    if size is not None:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_BGR2LAB)


def paint(kind: str, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    if kind == "flat":
        return np.full((height, width, 3), random.integers(0, 256, 3), np.uint8)
    if kind == "noise":
        return random.integers(0, 256, (height, width, 3), np.uint8)
    if kind == "two colours":  # as many ties as can be
        return random.integers(0, 256, (2, 3), np.uint8)[random.integers(0, 2, (height, width))]
    if kind == "ramp":
        y, x = np.mgrid[:height, :width]
        return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=2).astype(np.uint8)
    patches = random.integers(0, 256, (-(-height // 5), -(-width // 5), 3), np.uint8)
    return np.ascontiguousarray(patches.repeat(5, 0).repeat(5, 1)[:height, :width])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    height=st.integers(8, 140),
    width=st.integers(8, 140),
    block=st.floats(1.0, 12.0),
    bins=st.integers(2, 16),
    iterations=st.integers(0, 7),
    kind=st.sampled_from(["flat", "noise", "two colours", "ramp", "patches"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_sizes_and_drawn_images(reference, height, width, block, bins, iterations, kind, seed):
    count = max(1, int(height * width / (4 * block * block)))
    try:
        grid = seeds_grid(height, width, count)
    except InputError:
        return
    lab = paint(kind, height, width, np.random.default_rng(seed))
    expected = reference.labels(lab, count, bins, iterations)
    found = native_labels(lab, count, bins, iterations)
    assert np.array_equal(found, expected)
    assert found.min() >= 0
    assert found.max() < grid.count


@pytest.mark.parametrize(("bins", "iterations"), RECIPES)
@pytest.mark.parametrize(("size", "count", "images"), [(224, 196, 20), (256, 1024, 6), (480, 900, 4), (512, 1024, 4)])
def test_photographs(reference, photos, size, count, images, bins, iterations):
    for path in photos[:: len(photos) // images][:images]:
        lab = photo(path, size)
        expected = reference.labels(lab, count, bins, iterations)
        assert np.array_equal(native_labels(lab, count, bins, iterations), expected), path.name


def test_native_sizes(reference, photos):
    for i, path in enumerate(photos[:30]):
        lab = photo(path)
        bins, iterations = RECIPES[i % 2]
        count = (196, lab.shape[0] * lab.shape[1] // 256, 400)[i % 3]
        expected = reference.labels(lab, count, bins, iterations)
        assert np.array_equal(native_labels(lab, count, bins, iterations), expected), path.name


@pytest.mark.full
def test_three_hundred_photographs(reference, photos, data_dir):
    """benchmarks/seeds_equality.py goes over all photographs with all settings."""
    different = []
    for i, path in enumerate(photos[:300]):
        size, count = ((224, 196), (224, 196), (224, 196), (256, 1024), (224, 196), (480, 900))[i % 6]
        bins, iterations = RECIPES[i // 6 % 2]
        lab = photo(path, size)
        expected = reference.labels(lab, count, bins, iterations)
        if not np.array_equal(native_labels(lab, count, bins, iterations), expected):
            different.append((path.name, size, count, bins))
    for path in sorted((data_dir / "bsds500" / "images").glob("*/*.jpg"))[::6]:
        lab = photo(path)
        if not np.array_equal(native_labels(lab, 196, 15, 20), reference.labels(lab, 196, 15, 20)):
            different.append((path.name, "native", 196, 15))
    assert different == []
