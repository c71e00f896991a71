"""Colours that follow tracks: a hue for each coarsest track, shades of its parent's for every other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_FIRST_HUE = 0.70  # radians
_SPREAD = (0.5, 0.22, 0.1, 0.05)  # radians around the parent's hue, from the second coarsest level to the finest
_GLIDE = np.array([[0.008], [0.03]])  # most that lightness and hue change from frame to frame: nobody sees that
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, lie far apart


class Shades:
    """Hue and lightness of every track of a film.

    A coarsest track is born into the widest gap between the hues of those that live, and keeps its hue. Any other track
    is a shade of its parent's colour; should it come to another parent, its colour glides there over some frames.
    """

    def __init__(self) -> None:
        self._known: list[tuple[npt.NDArray[np.int64], Floats]] = []  # per level: ids, their [lightness, hue]

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
            self._known = [(np.zeros(0, np.int64), np.zeros((2, 0)))] * levels
        shown: list[Floats] = []
        for level in range(levels - 1, -1, -1):
            track, living = ids[level], np.sort(alive[level])
            colours, place = _at(*self._known[level], living), np.searchsorted(living, track)
            before = colours[:, place]
            new = np.isnan(before[1])
            if level == levels - 1:
                now = np.stack([np.where(track % 2 == 0, 0.70, 0.78), before[1]])
                if new.any():
                    taken = colours[1, ~np.isnan(colours[1])].tolist()
                    for born in np.flatnonzero(new):
                        taken.append(_widest_gap(taken))
                        now[1, born] = taken[-1]
            else:
                now = _shaded(track, shown[-1][:, parents[level]], level, levels)
                change = now - before
                change[1] = (change[1] + np.pi) % (2 * np.pi) - np.pi
                now = np.where(new, now, before + np.minimum(np.maximum(change, -_GLIDE), _GLIDE))
            shown.append(now)
            colours[:, place] = now
            self._known[level] = (living, colours)
        return tuple((light, hue) for light, hue in reversed(shown))


def _shaded(track: npt.NDArray[np.int64], parent: Floats, level: int, levels: int) -> Floats:
    """Lightness and hue of tracks around those of their parents, [2, n]."""
    spread = _SPREAD[min(levels - 2 - level, len(_SPREAD) - 1)]
    step = 0.05 if level else 0.03
    light = parent[0] + np.where(track % 2 == 0, step, -step)
    hue = parent[1] + spread * (2 * ((track * _GOLDEN) % 1) - 1)
    return np.stack([np.minimum(np.maximum(light, 0.55), 0.88), hue])


def _at(known: npt.NDArray[np.int64], colours: Floats, wanted: npt.NDArray[np.int64]) -> Floats:
    """Colours [2, n] of the wanted ids; NaN for one that is not known. Both lists of ids ascend."""
    if len(known) == 0:
        return np.full((2, len(wanted)), np.nan)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[place] == wanted, colours[:, place], np.nan)


def _widest_gap(hues: Sequence[float]) -> float:
    """The middle of the widest gap on the circle; the first hue where there is none yet."""
    if not hues:
        return _FIRST_HUE
    around = np.sort(np.mod(hues, 2 * np.pi))
    gaps = np.diff(np.append(around, around[0] + 2 * np.pi))
    widest = int(gaps.argmax())
    return float(np.mod(around[widest] + gaps[widest] / 2, 2 * np.pi))
