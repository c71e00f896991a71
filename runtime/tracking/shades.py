"""Colours that follow tracks: a hue for each coarsest track, shades of its parent's for every other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_FIRST_HUE = 0.70  # radians
_SPREAD = (0.5, 0.22, 0.1, 0.05)  # radians around the parent's hue, from the second coarsest level to the finest
_GLIDE_HUE, _GLIDE_LIGHT = 0.03, 0.008  # most that a colour changes from one frame to the next: nobody sees that
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, lie far apart


class Shades:
    """Hue and lightness of every track of a film.

    A coarsest track is born into the widest gap between the hues of those that live, and keeps its hue. Any other track
    is a shade of its parent's colour; should it come to another parent, its colour glides there over some frames.
    """

    def __init__(self) -> None:
        self._known: list[tuple[npt.NDArray[np.int64], Floats, Floats]] = []  # per level: ids, lightness, hue

    def update(
        self,
        ids: Sequence[npt.NDArray[np.int64]],
        parents: Sequence[npt.NDArray[np.int32]],
        alive: Sequence[npt.NDArray[np.int64]],
    ) -> tuple[tuple[Floats, Floats], ...]:
        """Colours of one frame.

        Args:
            ids: per level, the track of each segment.
            parents: per level but the last, each segment's parent.
            alive: per level, the tracks of this frame and those that may come again; others are forgotten.

        Returns:
            Per level lightness (0..1) and hue (radians) of each segment.
        """
        levels = len(ids)
        if len(self._known) != levels:
            self._known = [(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))] * levels
        shown: list[tuple[Floats, Floats]] = []
        for level in range(levels - 1, -1, -1):
            known, lights, hues = self._known[level]
            living = np.sort(alive[level])
            lights, hues = _at(known, lights, living), _at(known, hues, living)
            track, place = ids[level], np.searchsorted(living, ids[level])
            before_light, before_hue = lights[place], hues[place]
            new = np.isnan(before_hue)
            if level == levels - 1:
                light, hue = np.where(track % 2 == 0, 0.70, 0.78), before_hue
                taken = hues[~np.isnan(hues)].tolist()
                for born in np.flatnonzero(new):
                    hue[born] = _widest_gap(taken)
                    taken.append(float(hue[born]))
            else:
                above_light, above_hue = (values[parents[level]] for values in shown[-1])
                spread = _SPREAD[min(levels - 2 - level, len(_SPREAD) - 1)]
                step = 0.05 if level else 0.03
                hue = above_hue + spread * (2 * ((track * _GOLDEN) % 1) - 1)
                light = np.clip(above_light + np.where(track % 2 == 0, step, -step), 0.55, 0.88)
                turn = (hue - before_hue + np.pi) % (2 * np.pi) - np.pi
                hue = np.where(new, hue, before_hue + np.clip(turn, -_GLIDE_HUE, _GLIDE_HUE))
                change = np.clip(light - before_light, -_GLIDE_LIGHT, _GLIDE_LIGHT)
                light = np.where(new, light, before_light + change)
            shown.append((light, hue))
            lights[place], hues[place] = light, hue
            self._known[level] = (living, lights, hues)
        return tuple(reversed(shown))


def _at(known: npt.NDArray[np.int64], values: Floats, wanted: npt.NDArray[np.int64]) -> Floats:
    """Values of the wanted ids; NaN for one that is not known. Both lists of ids ascend."""
    if len(known) == 0:
        return np.full(len(wanted), np.nan)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, values[place], np.nan)


def _widest_gap(hues: Sequence[float]) -> float:
    """The middle of the widest gap on the circle; the first hue where there is none yet."""
    if not hues:
        return _FIRST_HUE
    around = np.sort(np.mod(hues, 2 * np.pi))
    gaps = np.diff(np.append(around, around[0] + 2 * np.pi))
    widest = int(gaps.argmax())
    return float(np.mod(around[widest] + gaps[widest] / 2, 2 * np.pi))
