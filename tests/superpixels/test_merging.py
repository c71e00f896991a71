"""Levels by merging neighbouring superpixels: the compiled form against the NumPy form, and what both promise."""

from itertools import pairwise

import numpy as np
import pytest

from cast_sdk.errors import InputError
from cast_sdk.superpixels import merged_levels, merging, seeds

SEGMENTS = (32, 16, 8, 4)


def soft(rng, count, segments=SEGMENTS):
    """Random soft assignments of `count` superpixels to nested clusters."""
    sizes = (count, *segments)
    scores = [rng.normal(size=pair).astype(np.float32) * 3 for pair in pairwise(sizes)]
    shares = [np.exp(score) for score in scores]
    return [share / share.sum(1, keepdims=True) for share in shares]


def picture(rng, side=64):
    coarse = rng.integers(0, 256, (8, 8, 3)).astype(np.float64)
    image = np.kron(coarse, np.ones((side // 8, side // 8, 1))) + rng.normal(0, 12, (side, side, 3))
    return image.clip(0, 255).astype(np.uint8)


def numpy_levels(monkeypatch, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(merging, "_library", lambda: None)
        return merged_levels(*arguments)


@pytest.mark.parametrize("seed", range(8))
def test_the_compiled_form_gives_the_levels_of_the_numpy_form(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    image = picture(rng)
    superpixels = seeds(image, 64, 5, 5)
    assignments = soft(rng, 70)  # six of them have no pixel
    assert merging._library() is not None
    compiled = merged_levels(image, superpixels, assignments)
    plain = numpy_levels(monkeypatch, image, superpixels, assignments)
    for a, b in zip(compiled, plain, strict=True):
        assert np.array_equal(a, b)


def test_levels_nest_are_connected_and_have_as_many_segments_as_the_network():
    from scipy.ndimage import label

    rng = np.random.default_rng(1)
    image = picture(rng)
    superpixels = seeds(image, 64, 5, 5)
    levels = merged_levels(image, superpixels, soft(rng, 64))
    below = superpixels
    for level, number in zip(levels, SEGMENTS, strict=True):
        regions = level[superpixels]
        assert len(np.unique(regions)) == number
        assert all(label(regions == region)[1] == 1 for region in range(number))
        assert all(len(np.unique(regions[below == part])) == 1 for part in np.unique(below))
        below = regions


def grid():
    """A flat picture of 4 x 4 superpixels."""
    cells = np.arange(16, dtype=np.int32).reshape(4, 4)
    return np.full((16, 16, 3), 90, np.uint8), np.kron(cells, np.ones((4, 4), np.int32)).astype(np.int32)


def halves(columns):
    """Assignments of the 16 superpixels of `grid` that put two halves into two segments, on every level."""
    side = columns.astype(int).ravel()
    first = np.eye(2, dtype=np.float32)[side]
    return [first, np.eye(2, dtype=np.float32)]


@pytest.mark.parametrize("compiled", [True, False])
def test_what_the_network_says_decides_where_colours_are_equal(compiled, monkeypatch):
    image, superpixels = grid()
    right = np.tile([False, False, True, True], (4, 1))
    levels = (
        merged_levels(image, superpixels, halves(right))
        if compiled
        else numpy_levels(monkeypatch, image, superpixels, halves(right))
    )
    assert np.array_equal(levels[0], right.ravel().astype(np.int32))


@pytest.mark.parametrize("compiled", [True, False])
def test_colour_decides_where_the_network_says_nothing(compiled, monkeypatch):
    image, superpixels = grid()
    image[8:] = 200
    even = [np.full((16, 2), 0.5, np.float32), np.full((2, 2), 0.5, np.float32)]
    levels = (
        merged_levels(image, superpixels, even) if compiled else numpy_levels(monkeypatch, image, superpixels, even)
    )
    assert np.array_equal(levels[0].reshape(4, 4), [[0] * 4] * 2 + [[1] * 4] * 2)


def test_colours_are_those_of_scikit_image():
    from skimage.color import rgb2lab

    rgb = np.random.default_rng(0).integers(0, 256, (200, 3)).astype(np.float64)
    assert np.abs(merging._lab(rgb) - rgb2lab(rgb[None] / 255)[0]).max() < 1e-3


@pytest.mark.parametrize("compiled", [True, False])
def test_a_label_without_an_assignment_is_refused(compiled, monkeypatch):
    image, superpixels = grid()
    if not compiled:
        monkeypatch.setattr(merging, "_library", lambda: None)
    with pytest.raises(InputError, match=r"0\.\.14"):
        merged_levels(image, superpixels, [np.full((15, 2), 0.5, np.float32)])


def test_without_the_compiled_library_the_segments_are_the_same(monkeypatch):
    image, superpixels = grid()
    right = np.tile([False, False, True, True], (4, 1))
    monkeypatch.setattr(merging, "native_library", lambda: None)
    merging._library.cache_clear()
    try:
        assert np.array_equal(merged_levels(image, superpixels, halves(right))[0], right.ravel().astype(np.int32))
    finally:
        merging._library.cache_clear()


@pytest.mark.parametrize(
    "change",
    [
        lambda image, labels, soft: (image[:-1], labels, soft),
        lambda image, labels, soft: (image[..., 0], labels, soft),
        lambda image, labels, soft: (image.astype(np.float32), labels, soft),
        lambda image, labels, soft: (image, labels.astype(np.float32), soft),
        lambda image, labels, soft: (image[:0], labels[:0], soft),
        lambda image, labels, soft: (image, labels, []),
        lambda image, labels, soft: (image, labels, [soft[0], soft[1][:1]]),
        lambda image, labels, soft: (image, labels, [soft[0].ravel()]),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(change):
    image, labels = grid()
    with pytest.raises(InputError, match="belong together") as caught:
        merged_levels(*change(image, labels, halves(np.tile([False, False, True, True], (4, 1)))))
    assert caught.value.found and caught.value.remedy
