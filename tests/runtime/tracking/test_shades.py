"""Colours that follow tracks."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cast_sdk.runtime.tracking.shades import Shades


def ids(*values):
    return np.array(values, np.int64)


def parents(*values):
    return np.array(values, np.int32)


def update(shades, fine, coarse, above, alive=None):
    return shades.update((ids(*fine), ids(*coarse)), (parents(*above),), alive or (ids(*fine), ids(*coarse)))


def test_a_track_keeps_its_colour_in_any_place():
    shades = Shades()
    first = update(shades, (1, 2, 3, 4), (10, 11), (0, 0, 1, 1))
    again = update(shades, (4, 2, 9, 1, 3), (11, 10), (0, 1, 0, 1, 0))  # other places, and a new one
    for part in (0, 1):  # lightness, hue
        assert np.array_equal(again[0][part][[3, 1, 4, 0]], first[0][part])
        assert np.array_equal(again[1][part][[1, 0]], first[1][part])


def test_coarsest_tracks_lie_far_apart():
    shades = Shades()
    for count in (2, 4, 8):
        ((_, hues),) = shades.update((np.arange(count),), (), (np.arange(count),))
        gaps = np.diff(np.append(np.sort(hues % (2 * np.pi)), np.sort(hues % (2 * np.pi))[0] + 2 * np.pi))
        assert gaps == pytest.approx(np.full(count, 2 * np.pi / count))


def test_children_are_shades_of_their_parent_and_glide_to_another():
    shades = Shades()
    (light, hue), (_, above) = update(shades, (1, 2, 3, 4), (10, 11), (0, 0, 1, 1))
    assert (np.abs(hue - above[[0, 0, 1, 1]]) < 0.6).all()
    last = hue
    for _ in range(200):
        (light, hue), (_, above) = update(shades, (1, 2, 3, 4), (10, 11), (0, 1, 1, 1))
        assert np.abs(hue - last).max() < 0.05
        last = hue
    assert np.cos(hue[1] - above[1]) > np.cos(0.6) and ((light > 0.5) & (light < 0.9)).all()


def test_a_hidden_track_comes_back_in_its_colour_and_a_dead_one_is_forgotten():
    shades = Shades()
    first = update(shades, (1, 2), (10,), (0, 0))
    update(shades, (1,), (10,), (0,), (ids(1, 2), ids(10)))
    assert update(shades, (1, 2), (10,), (0, 0))[0][1][1] == first[0][1][1]
    for number in range(100, 400):
        update(shades, (number,), (10,), (0,))
    assert len(shades._known[0]) == 2


def frames(count):
    """Tracks that are born, hidden and part: ids, members and living tracks of each frame."""
    rng = np.random.default_rng(0)
    for number in range(count):
        fine = number + rng.permutation(6)
        coarse = 1000 + number // 2 + np.arange(3)
        yield (
            (fine, coarse),
            (parents(*range(6)), parents(*rng.permutation([0, 0, 1, 1, 2, 2]))),
            (np.sort(fine), coarse),
        )


def drawn(shades, given):
    return [shades.of_next(*frame) for frame in given]


def equal(ones, others):
    return all(
        np.array_equal(a, b) for one, other in zip(ones, others, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_colours_of_frames_are_made_when_asked_for_and_stay():
    given = list(frames(12))
    shades, updated = Shades(), Shades()
    made = drawn(shades, given)
    assert len(shades._known[0]) == 0  # nothing has been done yet
    for frame, (ids_, members, alive) in zip(made, given, strict=True):
        above = np.zeros(6, np.int32)
        above[members[0]] = members[1]
        colours = updated.update(ids_, (above,), alive)
        assert equal(frame(), colours) and equal(frame(), colours)


def test_a_frame_that_is_looked_at_late_does_not_change_later_ones():
    given = list(frames(12))
    straight, back = drawn(Shades(), given), drawn(Shades(), given)
    for number in (2, 5, 9):
        straight[number]()
    back[2](), back[5](), back[3](), back[0]()
    hue, late = back[5]()[-1][1], back[4]()[-1][1]  # the coarsest tracks of frames 4 and 5 are the same
    assert np.array_equal(hue, late)
    assert equal(straight[9](), back[9]())


def test_pickled_colours_are_those_of_the_frame():
    made = drawn(Shades(), frames(3))
    copy = pickle.loads(pickle.dumps(made[1]))
    assert equal(copy(), made[1]()) and copy._source is None


def test_threads_that_look_at_one_frame_make_its_colours_once(monkeypatch):
    shades, made, update = Shades(), [], Shades.update

    def slow(self, ids_, *others):
        made.append(threading.get_ident())
        time.sleep(0.05)
        return update(self, ids_, *others)

    monkeypatch.setattr(Shades, "update", slow)
    (frame,) = drawn(shades, frames(1))
    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: (together.wait(), frame())[1], range(4))
    assert len(made) == 1 and all(other is first for other in others)
