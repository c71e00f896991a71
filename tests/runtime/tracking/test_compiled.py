"""The compiled tracker gives the bits of the NumPy code."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from cast_sdk.hierarchy import Hierarchy
from cast_sdk.runtime.tracking import compiled, film, plain
from cast_sdk.runtime.tracking.assignment import superpixels
from cast_sdk.runtime.tracking.membership import Membership, Rule, level, parents
from cast_sdk.superpixels.kernels import native_library

pytestmark = pytest.mark.skipif(native_library() is None, reason="needs the package's own kernel")


def test_the_library_has_them():
    """One that was built from older sources would have the NumPy code compared with itself."""
    assert compiled.available()


RULE = Rule(rate=0.25, margin=0.1)


def frames(seed: int, length: int, size: int = 96, count: int = 60):
    """Voronoi cells that move by some pixels and are sometimes others, with random levels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    points = rng.uniform(0, size, (count, 2))
    for number in range(length):
        points += rng.normal(0, 2, points.shape) if number % 10 else rng.uniform(-size, size, points.shape)
        cells = ((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).argmin(-1)
        levels, member = [], np.arange(count)
        for clusters in (24, 10, 4):
            member = rng.integers(0, clusters, member.max() + 1)[member]
            levels.append(member.astype(np.int32))
        yield Hierarchy.from_labels(cells, levels)


def same(*results: plain.Frame) -> None:
    first, second = ([*r.members, *r.ids, *r.ages, *r.alive] for r in results)
    assert results[0].next_id == results[1].next_id
    for a, b in zip(first, second, strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


@pytest.mark.parametrize("memory", [0, 1, 10, 500])
@pytest.mark.parametrize("size", [40, 150])  # the larger one is sampled
def test_a_film_gives_the_same_tracks_without_the_library(memory, size):
    rule = Rule(rate=1 / (1 + memory), margin=0.1 if memory else 0.0)
    states, number = (compiled.State(rule), plain.State(rule)), 0
    for frame in frames(memory, 40, size):
        taken = [state.update(frame.superpixels, frame.members, number) for state in states]
        same(*taken)
        number = taken[0].next_id
    assert number > 60


def test_sizes_counts_and_levels_may_change_and_a_reset_forgets():
    rng, states, number = np.random.default_rng(0), (compiled.State(RULE), plain.State(RULE)), 2**40
    for turn in range(60):
        if turn % 9 == 0:
            shape, count, levels = rng.integers(1, 150, 2), int(rng.integers(1, 90)), int(rng.integers(0, 6))
        if turn % 13 == 12:
            for state in states:
                state.reset()
        cells, fine = rng.integers(0, rng.integers(1, count + 1), shape), rng.integers(0, 20, count)
        frame = Hierarchy.from_labels(cells, [fine >> n for n in range(levels)])
        taken = [state.update(frame.superpixels, frame.members, number) for state in states]
        same(*taken)
        number = taken[0].next_id


def test_ties_go_to_the_first():
    """Superpixels and segments of one size: equal weights everywhere, and the choice is still the same."""
    cells = np.arange(144, dtype=np.int32).reshape(12, 12) // 2 % 36
    states = compiled.State(RULE), plain.State(RULE)
    for turn in range(12):
        fine = np.arange(36) // 3 if turn % 2 else np.arange(36) % 12
        frame = Hierarchy.from_labels(np.roll(cells, turn), [fine, fine % 2])
        same(*(state.update(frame.superpixels, frame.members, turn * 1000) for state in states))


def test_arrays_that_are_views_or_read_only_are_taken():
    now = (np.arange(64, dtype=np.int32).reshape(8, 8) % 5)[::2, ::-2]
    members = np.arange(5, dtype=np.int32), np.arange(10, dtype=np.int32)[::2] // 4
    now.flags.writeable = False
    states = compiled.State(RULE), plain.State(RULE)
    for _ in range(2):
        same(*(state.update(now, members, 0) for state in states))


def test_results_are_their_own():
    """No frame's arrays change with the next one."""
    state, seen = compiled.State(RULE), []
    for frame in frames(3, 4):
        taken = state.update(frame.superpixels, frame.members, 0)
        arrays = [*taken.members, *taken.ids, *taken.ages, *taken.alive]
        seen.append((arrays, [array.copy() for array in arrays]))
    del state, taken
    gc.collect()
    assert all(np.array_equal(a, b) for arrays, copies in seen for a, b in zip(arrays, copies, strict=True))


def test_threads_that_share_a_state_break_nothing():
    """Whose frame comes first is open; what each gets is whole."""
    state, wrong = compiled.State(RULE), []
    given = [list(frames(4, 30)), list(frames(5, 30, count=20))]

    def work(mine):
        for frame in mine * 5:
            taken = state.update(frame.superpixels, frame.members, 0)
            wrong.extend(1 for ids, member in zip(taken.ids, taken.members, strict=True) if len(ids) <= member.max())

    threads = [threading.Thread(target=work, args=(mine,)) for mine in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (97, 131), (224, 224)])
def test_films_are_looked_at_alike(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    for view in (image, image[::-1, ::-1]):
        assert np.array_equal(compiled.colours(view), film.colours(view))
    labels = (rng.random(size) ** 3 * 40).astype(np.int32)
    for low, high in ((3.5, 30.5), (10, 20), (0, 1e9)):
        assert compiled.beyond(labels, 40, low, high) == film.beyond(labels, 40, low, high)


def array(*values, kind=np.int64):
    return np.array(values, kind)


@pytest.mark.parametrize("wrong", [-1, 5, 2**31 - 1])
@pytest.mark.parametrize("kind", [compiled.State, plain.State])
def test_labels_beyond_their_counts_are_refused(kind, wrong):
    good, state = np.arange(25, dtype=np.int32).reshape(5, 5) % 5, kind(RULE)
    own, member = np.arange(5, dtype=np.int32), array(0, 0, 1, 1, 2, kind=np.int32)
    bad, none = good.copy(), member.copy()
    bad[3, 2] = none[1] = wrong
    for number in range(2):
        with pytest.raises(ValueError, match="not below the count"):
            state.update(bad, (own, member), number)
        with pytest.raises(ValueError, match="not below the count"):
            state.update(good, (own, none), number)
        after = state.update(good, (own, member), number)
        assert after.ids[0].tolist() == [number + i for i in range(5)]  # everything was forgotten
        assert len(after.ids[1]) == 3


def test_many_superpixels():
    """More pairs than the several tables are for."""
    rng, states, number = np.random.default_rng(3), (compiled.State(RULE), plain.State(RULE)), 0
    cells = np.arange(36 * 36, dtype=np.int32).reshape(36, 36).repeat(4, 0).repeat(4, 1)
    for turn in range(4):
        frame = Hierarchy.from_labels(np.roll(cells, turn, 1), [rng.integers(0, 30, 36 * 36)])
        taken = [state.update(frame.superpixels, frame.members, number) for state in states]
        same(*taken)
        number = taken[0].next_id


def test_members_of_another_length_are_refused():
    state, cells = compiled.State(RULE), np.zeros((4, 4), np.int32)
    with pytest.raises(ValueError, match="not below the count"):
        state.update(cells, (array(0, 1, kind=np.int32), array(0, kind=np.int32)), 0)
    with pytest.raises(ValueError, match="not below the count"):
        compiled.beyond(cells - 1, 4, 0, 1)


@pytest.mark.parametrize("wrong", [-1, 5, 2**31 - 1])
def test_superpixels_beyond_their_counts_are_refused(wrong):
    good = np.arange(25, dtype=np.int32).reshape(5, 5) % 5
    bad = good.copy()
    bad[3, 2] = wrong
    superpixels(good, good, 5, 5)
    for now, before in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match="not below the count"):
            superpixels(now, before, 5, 5)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("source", array(0, 1, 3)),
        ("source", array(0, -1, 2)),
        ("current", array(0, 2, 1)),
        ("current", array(-1, 0, 1)),
        ("member", array(0, -1, 1, kind=np.int32)),
    ],
)
def test_columns_that_do_not_exist_are_refused(name, wrong):
    given = {
        "shares": np.full((3, 2), 0.5, np.float32),
        "current": array(0, 1, 1),
        "source": array(0, 1, 2),
        "member": array(0, 1, 1, kind=np.int32),
        "areas": np.ones(3, np.float32),
    }
    level(**given, rate=0.1, margin=0.1)
    with pytest.raises(ValueError, match="not below the count"):
        level(**{**given, name: wrong}, rate=0.1, margin=0.1)


@pytest.mark.parametrize(
    ("column", "current"), [((0, 2), (0, 1)), ((0, -1), (0, 1)), ((0, 1), (0, 2)), ((0, 1), (-1, 0))]
)
def test_parents_of_columns_that_do_not_exist_are_refused(column, current):
    def found(column, current):
        coarser = Membership(np.eye(2, dtype=np.float32), array(*current), array(0, 1), array(0, 0))
        return parents(array(*column, kind=np.int32), 2, coarser, np.ones(2, np.float32))

    found((0, 1), (0, 1))
    with pytest.raises(ValueError, match="not below the count"):
        found(column, current)


def test_an_older_library_is_as_none(monkeypatch):
    """One that was compiled before tracking was: the NumPy code runs."""
    monkeypatch.setattr(compiled, "native_library", object)
    assert compiled._library.__wrapped__() is None
    monkeypatch.setattr(compiled, "native_library", lambda: None)
    assert compiled._library.__wrapped__() is None
