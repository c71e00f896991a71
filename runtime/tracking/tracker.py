"""A tracker follows the segments of a film: the same ids for the same segments, level by level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_sdk.arguments import real
from cast_sdk.runtime.tracking.assignment import superpixels as follow_superpixels
from cast_sdk.runtime.tracking.membership import Membership, Rule, parents
from cast_sdk.runtime.tracking.shades import FrameShades

Labels = npt.NDArray[np.int32]

MEMORY = 10.0  # frames: what a superpixel belonged to counts as much as the last so many frames
_MARGIN = 0.1  # a superpixel goes over when it belongs to another track by so much more


@dataclass(frozen=True)
class Tracks:
    """The tracks of one frame.

    Attributes:
        ids: one int64 [n_l] per level, the track of each segment; unique among all levels and frames of a stream.
        ages: one int64 [n_l] per level, frames since the birth of the track (0: new in this frame).
        shades: gives per level the lightness and the hue of each segment, float64 [n_l]; None before a stream sets it.
    """

    ids: tuple[npt.NDArray[np.int64], ...]
    ages: tuple[npt.NDArray[np.int64], ...]
    shades: FrameShades | None = None


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
        self.rule = Rule(rate=1 / (1 + memory), margin=_MARGIN if memory else 0.0)
        self.reset()
        self._next = 0  # ids go on after a reset: none is ever used twice

    def reset(self) -> None:
        """Forget everything, as after a cut: all tracks of the next frame are new."""
        self._frame = 0
        self._superpixels: Labels | None = None
        self._own = Ids.none()  # of the superpixels, which have no memory
        self._levels: list[Membership] = []  # of the others

    def alive(self) -> list[npt.NDArray[np.int64]]:
        """Ids per level that are shown or may be shown again."""
        return [self._own.ids, *(level.ids for level in self._levels)]

    def update(self, superpixels: Labels, members: tuple[Labels, ...]) -> tuple[list[Labels], Tracks]:
        """Take the next frame.

        Args:
            superpixels: int32 [h, w], labels 0..n_0-1 without gaps.
            members: one int32 [n_0] per level, each superpixel's segment; `members[0]` counts up (`Hierarchy`).

        Returns:
            The segments to show, as `members`; and their tracks. Levels nest, and segments have no gaps.
        """
        before, count = self._superpixels, len(members[0])
        if before is None or before.shape != superpixels.shape or len(self._levels) != len(members) - 1:
            self._start(members)
            areas = np.bincount(superpixels.ravel(), minlength=count).astype(np.float32)
        else:
            areas, source, same = follow_superpixels(superpixels, before, count, len(self._own.ids))
            self._follow(source, same, members, areas)
        self._superpixels = superpixels
        self._frame += 1
        return self._shown(members[0], areas)

    def _start(self, members: tuple[Labels, ...]) -> None:
        self._frame, self._levels, self._own = 0, [], Ids.none()
        self._follow_superpixels(np.full(len(members[0]), -1))
        for member in members[1:]:
            self._levels.append(Membership.first(member, self._next, 0))
            self._next += len(self._levels[-1].ids)

    def _follow(
        self,
        source: npt.NDArray[np.int64],
        same: npt.NDArray[np.int64],
        members: tuple[Labels, ...],
        areas: npt.NDArray[np.float32],
    ) -> None:
        for number, member in enumerate(members[1:]):
            level = self._levels[number].followed(
                source, member, areas, self.rule, next_id=self._next, frame=self._frame
            )
            self._levels[number] = level
            self._next = max(self._next, int(level.ids[-1]) + 1)
        self._follow_superpixels(same)

    def _follow_superpixels(self, same: npt.NDArray[np.int64]) -> None:
        """Level 0 has no memory: a superpixel goes on as the one that it continues, `same`, or is new (-1)."""
        fresh = same < 0
        births = self._next + np.cumsum(fresh) - 1
        self._next += int(fresh.sum())
        ids, born = births, np.full(len(same), self._frame)
        old = ~fresh
        ids[old], born[old] = self._own.ids[same[old]], self._own.born[same[old]]
        self._own = Ids(ids, born)

    def _shown(self, own: Labels, areas: npt.NDArray[np.float32]) -> tuple[list[Labels], Tracks]:
        members, ids, ages = [own], [self._own.ids], [self._frame - 1 - self._own.born]
        column, count = own, len(own)
        for number, level in enumerate(self._levels):
            # From the second level on tracks go to coarser ones as a whole, so that the levels nest.
            place = parents(column, count, level, areas)[column] if number else level.current
            used = np.bincount(place, minlength=len(level.ids)) > 0
            present = np.flatnonzero(used)
            column, count = (np.cumsum(used) - 1)[place].astype(np.int32), len(present)
            members.append(column)
            ids.append(level.ids[present])
            ages.append(self._frame - 1 - level.born[present])
        return members, Tracks(tuple(ids), tuple(ages))


@dataclass(frozen=True)
class Ids:
    """Tracks of the superpixels: int64 [superpixels] each, as in `Membership`."""

    ids: npt.NDArray[np.int64]
    born: npt.NDArray[np.int64]

    @classmethod
    def none(cls) -> Ids:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
