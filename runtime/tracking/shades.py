"""Colours that follow tracks: a hue for each coarsest track, shades of its parent's for every other."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.hierarchy import parents_of

Floats = npt.NDArray[np.float64]
Colours = tuple[tuple[Floats, Floats], ...]  # per level lightness (0..1) and hue (radians) of each segment

_FIRST_HUE = 0.70  # radians
_SPREAD = (0.5, 0.22, 0.1, 0.05)  # radians around the parent's hue, from the second coarsest level to the finest
_GLIDE = np.array([[0.008], [0.03]])  # most that lightness and hue change from frame to frame: nobody sees that
_NONE = np.zeros(0, np.int64)
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, lie far apart


class Shades:
    """Hue and lightness of every track of a film.

    A coarsest track is born into the widest gap between the hues of those that live, and keeps its hue. Any other track
    is a shade of its parent's colour; should it come to another parent, its colour glides there over some frames. Only
    frames that somebody looks at count: a stream that is not drawn spends no time on colours.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._given = self._latest = 0  # frames
        self._levels = 0
        self._known = _NONE, np.zeros((2, 0))  # ids, ascending, and their [lightness, hue]

    def of_next(
        self,
        ids: Sequence[npt.NDArray[np.int64]],
        members: Sequence[npt.NDArray[np.int32]],
        alive: Sequence[npt.NDArray[np.int64]],
    ) -> FrameShades:
        """Colours of the next frame, made when they are asked for.

        Args:
            ids, alive: as for `update`.
            members: per level, the segment of each superpixel.
        """
        self._given += 1
        return FrameShades(self, self._given, ids, members, alive)

    def at(
        self,
        frame: int,
        ids: Sequence[npt.NDArray[np.int64]],
        members: Sequence[npt.NDArray[np.int32]],
        alive: Sequence[npt.NDArray[np.int64]],
    ) -> Colours:
        """Colours of a frame; of one before the latest that was looked at, what is still known of it."""
        known, levels = self._known, self._levels
        colours = self.update(ids, [parents_of(*pair) for pair in itertools.pairwise(members)], alive)
        if frame < self._latest:
            self._known, self._levels = known, levels
        self._latest = max(self._latest, frame)
        return colours

    def update(
        self,
        ids: Sequence[npt.NDArray[np.int64]],
        parents: Sequence[npt.NDArray[np.int32]],
        alive: Sequence[npt.NDArray[np.int64]],
    ) -> Colours:
        """Colours of one frame, which the next ones go on from.

        Args:
            ids: per level, the track of each segment; none twice, in any level.
            parents: per level but the last, each segment's parent.
            alive: per level, the tracks of this frame and those that may come again; others are forgotten.

        Returns:
            Per level lightness (0..1) and hue (radians) of each segment.
        """
        if len(ids) != self._levels:
            self._levels, self._known = len(ids), (_NONE, np.zeros((2, 0)))
        living, tracks = np.sort(np.concatenate(alive)), np.concatenate(ids)
        colours, place = _at(*self._known, living), np.searchsorted(living, tracks)
        before = colours[:, place]
        now, new = _beside_parents(tracks, [len(level) for level in ids]), np.isnan(before[1])
        ends = np.cumsum([len(level) for level in ids])
        coarsest = slice(ends[-1] - len(ids[-1]), ends[-1])
        now[0, coarsest], now[1, coarsest] = np.where(ids[-1] % 2 == 0, 0.70, 0.78), before[1, coarsest]
        if new[coarsest].any():
            known = colours[1, np.searchsorted(living, alive[-1])]
            taken = known[~np.isnan(known)].tolist()
            for born in coarsest.start + np.flatnonzero(new[coarsest]):
                taken.append(_widest_gap(taken))
                now[1, born] = taken[-1]
        above = now[:, coarsest]
        for level in range(len(ids) - 2, -1, -1):
            here = slice(ends[level] - len(ids[level]), ends[level])
            shade = now[:, here]
            shade += above[:, parents[level]]
            np.minimum(np.maximum(shade[0], 0.55, out=shade[0]), 0.88, out=shade[0])
            change = shade - before[:, here]
            change[1] = (change[1] + np.pi) % (2 * np.pi) - np.pi
            glided = before[:, here] + np.minimum(np.maximum(change, -_GLIDE), _GLIDE)
            np.copyto(shade, glided, where=~new[here])
            above = shade
        colours[:, place] = now
        self._known = (living, colours)
        light, hue = np.split(now[0], ends[:-1]), np.split(now[1], ends[:-1])
        return tuple(zip(light, hue, strict=True))


class FrameShades:
    """The colours of one frame, made the first time that they are asked for, by any thread.

    Pickled, they are the colours alone.
    """

    def __init__(self, shades: Shades, frame: int, *arrays: Any) -> None:
        self._source: tuple[Any, ...] | None = (shades, frame, *arrays)
        self._colours: Colours = ()

    def __call__(self) -> Colours:
        if (source := self._source) is not None:
            shades, *given = source
            with shades.lock:
                if self._source is not None:
                    self._colours, self._source = shades.at(*given), None
        return self._colours

    def __getstate__(self) -> dict[str, Any]:
        return {"_colours": self(), "_source": None}


def _beside_parents(tracks: npt.NDArray[np.int64], counts: Sequence[int]) -> Floats:
    """How far lightness and hue of each track lie from its parent's: [2, n]; tracks per level, fine to coarse."""
    finest = len(counts) - 2
    steps = [0.05 if level else 0.03 for level in range(len(counts))]
    spreads = [_SPREAD[min(max(finest - level, 0), len(_SPREAD) - 1)] for level in range(len(counts))]
    step, spread = np.repeat(np.array([steps, spreads]), counts, axis=1)
    return np.stack([np.where(tracks % 2 == 0, step, -step), spread * (2 * ((tracks * _GOLDEN) % 1) - 1)])


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
