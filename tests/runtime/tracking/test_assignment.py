"""Overlaps of label maps, and the one-to-one assignment against the best there is."""

from __future__ import annotations

import numpy as np
import pytest

from cast_sdk.runtime.tracking.assignment import assign, overlaps

scipy_optimize = pytest.importorskip("scipy.optimize")


def random_regions(rng, count, size=96):
    """Voronoi cells of random points: int32 [size, size]."""
    points = rng.uniform(0, size, (count, 2))
    y, x = np.mgrid[:size, :size]
    return ((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).argmin(-1).astype(np.int32)


def test_overlaps_count_pixels():
    now = np.array([[0, 0, 1], [2, 2, 1]], np.int32)
    before = np.array([[1, 0, 0], [1, 1, 0]], np.int32)
    assert np.array_equal(overlaps(now, before, 4, 3), [[1, 1, 0], [2, 0, 0], [0, 2, 0], [0, 0, 0]])


def test_overlaps_of_large_maps_are_samples():
    rng = np.random.default_rng(0)
    now, before = random_regions(rng, 30, 260), random_regions(rng, 20, 260)
    sampled = overlaps(now, before, 30, 20)
    full = np.bincount((now * 20 + before).ravel(), minlength=600).reshape(30, 20)
    assert sampled.sum() == 87**2
    assert np.abs(sampled / sampled.sum() - full / full.sum()).max() < 0.002


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (5, 9), (9, 5)])
def test_pairs_are_one_to_one(shape):
    weights = np.random.default_rng(1).integers(0, 4, shape)
    chosen = assign(weights)
    assert chosen.dtype == np.int64 and chosen.shape == (shape[0],)
    taken = chosen[chosen >= 0]
    assert len(set(taken.tolist())) == len(taken)
    assert all(weights[row, column] > 0 for row, column in enumerate(chosen) if column >= 0)
    # nothing that could still be paired is left
    free_rows, free_columns = np.flatnonzero(chosen < 0), np.setdiff1d(np.arange(shape[1]), taken)
    assert not weights[np.ix_(free_rows, free_columns)].any()


def test_it_is_the_greedy_assignment():
    rng = np.random.default_rng(2)
    for _ in range(50):
        weights = rng.permutation(63).reshape(7, 9).astype(float)  # no ties
        expected, left = np.full(7, -1), weights.copy()
        while left.max() > 0:
            row, column = np.unravel_index(left.argmax(), left.shape)
            expected[row] = column
            left[row], left[:, column] = 0, 0
        assert np.array_equal(assign(weights), expected)


def test_at_least_half_of_the_best_on_anything():
    rng = np.random.default_rng(3)
    for _ in range(100):
        weights = rng.integers(0, 10, (8, 8))
        rows, columns = scipy_optimize.linear_sum_assignment(-weights)
        chosen = assign(weights)
        assert 2 * weights[np.arange(8), chosen][chosen >= 0].sum() >= weights[rows, columns].sum()


@pytest.mark.parametrize("count", [8, 64, 196])
def test_nearly_the_best_on_segments(count):
    """Regions that moved by some pixels, and some that were exchanged."""
    rng = np.random.default_rng(count)
    for shift in (0, 1, 3):
        now = random_regions(rng, count)
        before = np.roll(rng.permutation(count).astype(np.int32)[now], shift, (0, 1))
        weights = overlaps(now, before, count, count)
        rows, columns = scipy_optimize.linear_sum_assignment(-weights)
        chosen = assign(weights)
        share = weights[np.arange(count), chosen][chosen >= 0].sum() / weights[rows, columns].sum()
        assert share == 1 if shift == 0 else share > 0.97
