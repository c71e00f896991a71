"""Superpixels that go on from those of the frame before: exactly the passes of a fresh start, and steadier."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.spec import SuperpixelSettings
from cast_sdk.superpixels import (
    api,
    can_continue,
    continue_seeds,
    kernels,
    seeds,
    seeds_count,
    superpixels_after,
    superpixels_for,
)

pytestmark = pytest.mark.skipif(not can_continue(), reason="needs the package's own kernel")


@pytest.fixture(scope="module")
def photo(photos):
    return cv2.cvtColor(cv2.resize(cv2.imread(str(photos[40])), (224, 224)), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("first", [0, 2, 4, 10])
@pytest.mark.parametrize("more", [0, 1, 2, 6])
def test_it_runs_the_same_passes(photo, first, more):
    """Going on after an even number of passes is the same as not having stopped: so OpenCV's to the bit as well."""
    begun = seeds(photo, iterations=first)
    assert np.array_equal(continue_seeds(photo, begun, passes=more), seeds(photo, iterations=first + more))


@pytest.mark.parametrize(("height", "width", "count"), [(96, 96, 64), (97, 131, 60), (240, 64, 50), (512, 512, 1024)])
def test_sizes(photos, height, width, count):
    image = cv2.resize(cv2.imread(str(photos[7])), (width, height))
    begun = seeds(image, count, iterations=2)
    assert np.array_equal(continue_seeds(image, begun, count, passes=3), seeds(image, count, iterations=5))


def test_deterministic_and_the_given_labels_stay(photo):
    moved = np.roll(photo, 3, 1)
    begun = seeds(photo)
    before = begun.copy()
    results = [continue_seeds(moved, begun) for _ in range(3)]
    assert all(np.array_equal(result, results[0]) for result in results)
    assert np.array_equal(begun, before)
    assert results[0].min() >= 0 and results[0].max() < seeds_count(224, 224)
    seeds(np.roll(photo, 90, 0))  # what the kernel did in between is forgotten
    assert np.array_equal(continue_seeds(moved, begun), results[0])


def test_labels_stay_with_noise_where_fresh_ones_jump(photo):
    rng = np.random.default_rng(0)
    noisy = [np.clip(photo + rng.normal(0, 2, photo.shape), 0, 255).astype(np.uint8) for _ in range(2)]
    before = seeds(noisy[0])
    fresh, continued = (seeds(noisy[1]) == before).mean(), (continue_seeds(noisy[1], before) == before).mean()
    assert continued > fresh + 0.1


def test_settings_of_a_model(photo):
    settings = SuperpixelSettings(count=196, bins=5, iterations=2, invert=True)
    begun = superpixels_for(photo, settings)
    ready = superpixels_for(photo, SuperpixelSettings(count=196, bins=5, iterations=6, invert=True))
    assert np.array_equal(superpixels_after(photo, begun, settings, 4), ready)


def test_labels_that_do_not_fit(photo):
    good = seeds(photo)
    for bad, message in (
        (good[:100], r"int32 \[100, 224\]"),
        (good.astype(np.int64), "int64"),
        (None, "NoneType"),
        (good - 1, r"0\.\.195"),
        (np.full_like(good, 196), r"0\.\.195"),
    ):
        with pytest.raises(InputError, match=message):
            continue_seeds(photo, bad)
    with pytest.raises(InputError, match="iterations"):
        continue_seeds(photo, good, passes=-1)
    assert np.array_equal(continue_seeds(photo, good[:, ::-1], passes=0), good[:, ::-1]), "any memory layout"


def test_opencvs_kernel_says_that_it_cannot(photo, monkeypatch):
    class Other:
        name = "opencv"

        def __init__(self, *sizes):
            pass

    begun = seeds(photo)
    monkeypatch.setattr(kernels, "kernel_class", lambda: Other)
    kernels._idle.cache_clear()
    monkeypatch.setattr(api, "native_library", lambda: None)
    with pytest.raises(MissingDependencyError, match="continued"):
        continue_seeds(photo, begun)
    assert not can_continue()
    kernels._idle.cache_clear()
