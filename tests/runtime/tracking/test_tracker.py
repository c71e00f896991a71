"""The tracker on label arrays: ids that stay, are born and die, levels that nest, a memory that steadies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cast_sdk.errors import InputError
from cast_sdk.hierarchy import Hierarchy
from cast_sdk.runtime.tracking.membership import group_sums
from cast_sdk.runtime.tracking.tracker import Tracker

GRID = 8
CELLS = (np.arange(64)[:, None] // 8 * GRID + np.arange(64)[None] // 8).astype(np.int32)  # 8 x 8 superpixels
COLUMNS = np.arange(GRID * GRID) % GRID


def members(*levels):
    return Hierarchy.from_labels(CELLS, [np.asarray(level, np.int32) for level in levels]).members


def stripes(width):
    return COLUMNS // width


def test_the_same_frame_keeps_all_ids():
    tracker = Tracker()
    segments = members(stripes(1), stripes(2), stripes(4))
    shown, first = tracker.update(CELLS, segments)
    for age in range(1, 20):
        shown, tracks = tracker.update(CELLS, segments)
        for level in range(4):
            assert np.array_equal(tracks.ids[level], first.ids[level])
            assert np.array_equal(shown[level], segments[level])
            assert (tracks.ages[level] == age).all()
    every = np.concatenate(first.ids)
    assert every.dtype == np.int64 and len(set(every.tolist())) == len(every), "one id, one track, on any level"


@pytest.mark.parametrize("memory", [0, 8])
def test_numbers_of_the_network_mean_nothing(memory):
    """The same segments under other numbers in every frame."""
    rng = np.random.default_rng(0)
    tracker, seen = Tracker(memory), []
    for _ in range(10):
        fine, coarse = rng.permutation(8)[stripes(1)], rng.permutation(2)[stripes(4)]
        shown, tracks = tracker.update(CELLS, members(fine, coarse))
        seen.append([tracks.ids[level][shown[level]] for level in (1, 2)])
    assert all(np.array_equal(seen[0], frame) for frame in seen)


def test_without_memory_segments_are_the_networks():
    rng = np.random.default_rng(1)
    tracker = Tracker(0)
    for _ in range(20):
        fine = rng.integers(0, 12, 64)
        given = members(fine, fine // 4)
        shown, _ = tracker.update(CELLS, given)
        for level in range(3):
            pairs = {(a, b) for a, b in zip(shown[level].tolist(), given[level].tolist(), strict=True)}
            assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}), "the same partition"


def test_levels_nest_whatever_the_network_says():
    rng = np.random.default_rng(2)
    tracker = Tracker(4)
    for _ in range(60):
        fine = rng.integers(0, 16, 64)
        middle = rng.integers(0, 6, 16)
        shown, tracks = tracker.update(CELLS, members(fine, middle[fine], rng.integers(0, 3, 6)[middle[fine]]))
        for finer, coarser in itertools.pairwise(shown):
            assert len({(a, b) for a, b in zip(finer, coarser, strict=True)}) == len(set(finer.tolist()))
        for level, ids in enumerate(tracks.ids):
            assert set(shown[level].tolist()) == set(range(len(ids))), "no gaps"
            assert (np.diff(ids) > 0).all()


def test_a_flicker_is_not_shown_and_a_change_is():
    tracker = Tracker(8)
    usual, other = stripes(4), 1 - (np.arange(64) // GRID) // 4  # halves: left and right, or below and above
    for _ in range(20):
        shown, _ = tracker.update(CELLS, members(usual))
    for _ in range(2):
        shown, _ = tracker.update(CELLS, members(other))
        assert np.array_equal(shown[1], usual), "two frames of something else are a flicker"
    for _ in range(12):
        shown, _ = tracker.update(CELLS, members(other))
    quarter = (usual == 0) == (shown[1][0] == shown[1])
    assert not quarter.all() and len(set(zip(shown[1].tolist(), other.tolist(), strict=True))) == 2, (
        "now it is the rule"
    )


def test_births_and_deaths():
    tracker = Tracker(4)
    two, three = stripes(4), np.minimum(stripes(2), 2)
    for _ in range(5):
        _, before = tracker.update(CELLS, members(two))
    for _ in range(12):
        _shown, during = tracker.update(CELLS, members(three))
    assert set(before.ids[1]) < set(during.ids[1]) and len(during.ids[1]) == 3
    newborn = np.flatnonzero(~np.isin(during.ids[1], before.ids[1]))
    assert during.ages[1][newborn] < 12 <= during.ages[1].max()
    for _ in range(60):
        _, after = tracker.update(CELLS, members(two))
    assert np.array_equal(after.ids[1], before.ids[1]) and len(tracker.alive()[1]) == 2, "the third has died"
    for _ in range(12):
        _, again = tracker.update(CELLS, members(three))
    assert not np.isin(during.ids[1][newborn], again.ids[1]).any(), "and does not come back as the same"


def test_segments_that_move_keep_their_ids():
    """A square over a ground, one pixel a frame, on superpixels that do not move along."""
    tracker = Tracker(8)
    seen = []
    for t in range(30):
        middle = (np.arange(GRID) * 8 + 3.5)[None].repeat(GRID, 0).ravel(), (np.arange(GRID) * 8 + 3.5).repeat(GRID)
        inside = (np.abs(middle[0] - 16 - t) < 12) & (np.abs(middle[1] - 32) < 12)
        _shown, tracks = tracker.update(CELLS, members(inside.astype(int)))
        seen.append(tracks.ids[1].tolist())
    assert seen == [seen[0]] * 30


def test_a_reset_uses_no_id_twice():
    tracker = Tracker()
    _, before = tracker.update(CELLS, members(stripes(2)))
    tracker.reset()
    _, after = tracker.update(CELLS, members(stripes(2)))
    assert not np.isin(np.concatenate(after.ids), np.concatenate(before.ids)).any()
    assert (after.ages[1] == 0).all()


def test_superpixels_may_change_in_number():
    tracker = Tracker()
    tracker.update(CELLS, members(stripes(2)))
    fewer = Hierarchy.from_labels(np.where(CELLS == 9, 8, CELLS), [stripes(2).astype(np.int32)])
    shown, tracks = tracker.update(fewer.superpixels, fewer.members)
    assert len(shown[0]) == 63 and tracks.ids[0].tolist() == [i for i in range(64) if i != 9]
    _, tracks = tracker.update(CELLS, members(stripes(2)))
    assert len(tracks.ids[0]) == 64 and (tracks.ages[0] == 0).sum() == 1


def test_ids_are_64_bits_wide():
    tracker = Tracker()
    tracker._next = 2**40
    _, tracks = tracker.update(CELLS, members(stripes(2)))
    assert tracks.ids[0].dtype == np.int64 and tracks.ids[0][0] == 2**40


def test_thousands_of_frames_keep_the_state_small():
    rng = np.random.default_rng(4)
    tracker = Tracker()
    largest = 0
    for _ in range(3000):
        fine = rng.integers(0, 12, 64)
        tracker.update(CELLS, members(fine, rng.integers(0, 4, 12)[fine]))
        largest = max(largest, *(len(ids) for ids in tracker.alive()[1:]))
    assert largest <= 64, "no more tracks than superpixels can be told to remember"


@pytest.mark.parametrize("memory", [-1, float("nan"), 1e9])
def test_a_memory_that_makes_no_sense(memory):
    with pytest.raises(InputError, match="memory"):
        Tracker(memory)


def test_groups_are_summed_row_by_row():
    rng = np.random.default_rng(5)
    values, groups = rng.random((300, 7), np.float32), rng.integers(0, 4, 300)
    expected = np.zeros((5, 7), np.float32)
    for row, group in zip(values, groups, strict=True):
        expected[group] += row
    assert np.array_equal(group_sums(values, groups, 5), expected)
