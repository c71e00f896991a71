"""Colours that follow tracks."""

from __future__ import annotations

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
