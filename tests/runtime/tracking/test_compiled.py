"""The compiled inner loops give the bits of the NumPy code."""

from __future__ import annotations

import numpy as np
import pytest

from cast_sdk.hierarchy import Hierarchy
from cast_sdk.runtime.tracking import compiled, membership
from cast_sdk.runtime.tracking.assignment import superpixels
from cast_sdk.runtime.tracking.tracker import Tracker
from cast_sdk.superpixels.kernels import native_library

pytestmark = pytest.mark.skipif(native_library() is None, reason="needs the package's own kernel")


def test_the_library_has_them():
    """One that was built from older sources would have the NumPy code compared with itself."""
    assert compiled.available()


def film(seed: int, frames: int, size: int = 96, count: int = 60):
    """Voronoi cells that move by some pixels and are sometimes others, with random levels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    points = rng.uniform(0, size, (count, 2))
    for number in range(frames):
        points += rng.normal(0, 2, points.shape) if number % 10 else rng.uniform(-size, size, points.shape)
        cells = ((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).argmin(-1)
        levels, member = [], np.arange(count)
        for clusters in (24, 10, 4):
            member = rng.integers(0, clusters, member.max() + 1)[member]
            levels.append(member.astype(np.int32))
        yield Hierarchy.from_labels(cells, levels)


@pytest.mark.parametrize("memory", [0, 1, 10, 500])
@pytest.mark.parametrize("size", [40, 150])  # the larger one is sampled
def test_a_film_gives_the_same_tracks_without_the_library(monkeypatch, memory, size):
    native, numpy = Tracker(memory), Tracker(memory)
    for frame in film(memory, 40, size):
        shown, tracks = native.update(frame.superpixels, frame.members)
        with monkeypatch.context() as patch:
            patch.setattr(compiled, "available", lambda: False)
            other_shown, other_tracks = numpy.update(frame.superpixels, frame.members)
        for a, b in zip(
            [*shown, *tracks.ids, *tracks.ages, *(level.shares for level in native._levels)],
            [*other_shown, *other_tracks.ids, *other_tracks.ages, *(level.shares for level in numpy._levels)],
            strict=True,
        ):
            assert a.dtype == b.dtype and np.array_equal(a, b)


def test_ties_go_to_the_first():
    """Equal weights everywhere: the choice is still the same."""
    shares = np.full((12, 5), 0.2, np.float32)
    current, source = np.arange(12) % 5, np.arange(12)
    member, areas = (np.arange(12) % 4).astype(np.int32), np.full(12, 7, np.float32)
    from cast_sdk.runtime.tracking.membership import level

    given = (shares, current, source, member, areas, 0.25, 0.1)
    for a, b in zip(compiled.level(*given), level(*given), strict=True):
        assert np.array_equal(a, b)


def test_arrays_that_are_views_are_taken():
    now = np.arange(64, dtype=np.int32).reshape(8, 8)[::2, ::-2] % 5
    areas, source, same = compiled.superpixels(now, now, 5, 5, 1)
    assert np.array_equal(areas, np.bincount(now.ravel(), minlength=5))
    present = np.flatnonzero(areas)
    assert np.array_equal(source[present], present) and np.array_equal(same[present], present)


@pytest.fixture(params=["compiled", "numpy"])
def path(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(compiled, "available", lambda: False)
    return request.param


def array(*values, kind=np.int64):
    return np.array(values, kind)


@pytest.mark.parametrize("wrong", [-1, 5, 2**31 - 1])
def test_labels_beyond_their_counts_are_refused(path, wrong):
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
def test_columns_that_do_not_exist_are_refused(path, name, wrong):
    given = {
        "shares": np.full((3, 2), 0.5, np.float32),
        "current": array(0, 1, 1),
        "source": array(0, 1, 2),
        "member": array(0, 1, 1, kind=np.int32),
        "areas": np.ones(3, np.float32),
    }
    step = compiled.level if path == "compiled" else membership.level
    step(**given, rate=0.1, margin=0.1)
    with pytest.raises(ValueError, match="not below the count"):
        step(**{**given, name: wrong}, rate=0.1, margin=0.1)


@pytest.mark.parametrize(
    ("column", "current"), [((0, 2), (0, 1)), ((0, -1), (0, 1)), ((0, 1), (0, 2)), ((0, 1), (-1, 0))]
)
def test_parents_of_columns_that_do_not_exist_are_refused(path, column, current):
    def parents(column, current):
        coarser = membership.Membership(np.eye(2, dtype=np.float32), array(*current), array(0, 1), array(0, 0))
        return membership.parents(array(*column, kind=np.int32), 2, coarser, np.ones(2, np.float32))

    parents((0, 1), (0, 1))
    with pytest.raises(ValueError, match="not below the count"):
        parents(column, current)


def test_an_older_library_is_as_none(monkeypatch):
    """One that was compiled before tracking was: the NumPy code runs."""
    monkeypatch.setattr(compiled, "native_library", object)
    assert compiled._library.__wrapped__() is None
    monkeypatch.setattr(compiled, "native_library", lambda: None)
    assert compiled._library.__wrapped__() is None
