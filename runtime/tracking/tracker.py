"""A tracker follows the segments of a film: the same ids for the same segments, level by level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_sdk.arguments import real
from cast_sdk.runtime.tracking.assignment import overlaps
from cast_sdk.runtime.tracking.membership import Membership, parents

Labels = npt.NDArray[np.int32]

MEMORY = 10.0  # frames: what a superpixel belonged to counts as much as the last so many frames
_MARGIN = 0.1  # a superpixel goes over when it belongs to another track by so much more


@dataclass(frozen=True)
class Tracks:
    """The tracks of one frame.

    Attributes:
        ids: one int64 [n_l] per level, the track of each segment; unique among all levels and frames of a stream.
        ages: one int64 [n_l] per level, frames since the birth of the track (0: new in this frame).
        shades: per level the lightness and the hue of each segment, float64 [n_l]; empty before a stream sets them.
    """

    ids: tuple[npt.NDArray[np.int64], ...]
    ages: tuple[npt.NDArray[np.int64], ...]
    shades: tuple[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], ...] = ()


class Tracker:
    """Follows segments from frame to frame. One per film; frames in order.

    Each level remembers to what share each superpixel belongs to each track, a running mean over about `memory` frames.
    The segments of a new frame are assigned to tracks by the shares that they have in common, and a superpixel goes on
    with the shares of the one that covered most of it in the frame before. What is shown is the tracks, each with its
    parent in the next level as a whole: so a segmentation that jumps to and fro settles to what it mostly is, and
    follows a lasting change within about `memory` frames.

    Args:
        memory: frames, 0 or more. With 0 the segments of each frame stay as the network gave them and only get ids.
    """

    def __init__(self, memory: float = MEMORY) -> None:
        real(memory, "memory", 0, 10_000)
        self.memory = memory
        self.rate = 1 / (1 + memory)
        self.margin = _MARGIN if memory else 0.0
        self.reset()
        self._next = 0  # ids go on after a reset: none is ever used twice

    def reset(self) -> None:
        """Forget everything, as after a cut: all tracks of the next frame are new."""
        self._frame = 0
        self._superpixels: Labels | None = None
        self._levels: list[Membership] = []

    def alive(self) -> list[npt.NDArray[np.int64]]:
        """Ids per level that are shown or may be shown again."""
        return [level.ids for level in self._levels]

    def update(self, superpixels: Labels, members: tuple[Labels, ...]) -> tuple[list[Labels], Tracks]:
        """Take the next frame.

        Args:
            superpixels: int32 [h, w], labels 0..n_0-1 without gaps.
            members: one int32 [n_0] per level, each superpixel's segment; `members[0]` counts up (`Hierarchy`).

        Returns:
            The segments to show, as `members`; and their tracks. Levels nest, and segments have no gaps.
        """
        count = len(members[0])
        areas = np.bincount(superpixels.ravel(), minlength=count).astype(np.float32)
        before = self._superpixels
        if before is None or before.shape != superpixels.shape or len(self._levels) != len(members):
            self._start(members)
        else:
            self._follow(superpixels, before, members, areas)
        self._superpixels = superpixels
        self._frame += 1
        return self._shown(areas)

    def _start(self, members: tuple[Labels, ...]) -> None:
        self._frame, self._levels = 0, []
        for member in members:
            self._levels.append(Membership.first(member, self._next, 0))
            self._next += len(self._levels[-1].ids)

    def _follow(self, now: Labels, before: Labels, members: tuple[Labels, ...], areas: npt.NDArray[np.float32]) -> None:
        common = overlaps(now, before, len(members[0]), len(self._levels[0].shares))
        source = common.argmax(1)
        levels = [self._levels[0], *(level.carried(source) for level in self._levels[1:])]
        for number in range(1, len(levels)):
            level, member = levels[number], members[number]
            levels[number], births = level.updated(
                member,
                level.match(member, areas),
                rate=self.rate,
                margin=self.margin,
                next_id=self._next,
                frame=self._frame,
            )
            self._next += births
        goes_on = common.argmax(0)[source] == np.arange(len(source))
        levels[0] = self._same_superpixels(levels[0], np.where(goes_on & (common.max(1) > 0), source, -1))
        self._levels = levels

    def _same_superpixels(self, level: Membership, source: npt.NDArray[np.int64]) -> Membership:
        """Level 0 has no memory: a superpixel goes on as the one it overlaps most, if that is mutual, or is new."""
        fresh = source < 0
        births = self._next + np.cumsum(fresh) - 1
        self._next += int(fresh.sum())
        count = len(source)
        ids = np.where(fresh, births, level.ids[source])
        born = np.where(fresh, self._frame, level.born[source])
        return Membership(np.eye(count, dtype=np.float32), np.arange(count), ids, born)

    def _shown(self, areas: npt.NDArray[np.float32]) -> tuple[list[Labels], Tracks]:
        members, ids, ages = [], [], []
        column = self._levels[0].current
        for number, level in enumerate(self._levels):
            if number == 1:
                column = level.current
            elif number > 1:  # tracks go to coarser ones as a whole, so that the levels nest
                column = parents(column, len(self._levels[number - 1].ids), level, areas)[column]
            used = np.bincount(column, minlength=len(level.ids)) > 0
            present = np.flatnonzero(used)
            members.append((np.cumsum(used) - 1)[column].astype(np.int32))
            ids.append(level.ids[present])
            ages.append(self._frame - 1 - level.born[present])
        return members, Tracks(tuple(ids), tuple(ages))
