"""What a tracker knows of the frames so far, in NumPy: for installations without the compiled library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cast_sdk.runtime.tracking.assignment import refuse_outside
from cast_sdk.runtime.tracking.assignment import superpixels as follow_superpixels
from cast_sdk.runtime.tracking.membership import Membership, Rule, parents

Labels = npt.NDArray[np.int32]
Numbers = npt.NDArray[np.int64]


class Frame(NamedTuple):
    """What to show of a frame.

    Attributes:
        members: per level, the superpixels first, each superpixel's segment.
        ids: per level, the track of each segment.
        ages: per level, frames since the birth of the track.
        alive: per level, ids that are shown or may be shown again.
        next_id: of the next track that is born.
    """

    members: list[Labels]
    ids: tuple[Numbers, ...]
    ages: tuple[Numbers, ...]
    alive: list[Numbers]
    next_id: int


class State:
    """The tracks of all levels and the superpixels of the frame before; `compiled.State` gives the same bits sooner."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.reset()

    def reset(self) -> None:
        """Forget everything: all tracks of the next frame are new."""
        self._frame = 0
        self._superpixels: Labels | None = None
        self._own = Ids.none()  # of the superpixels, which have no memory
        self._levels: list[Membership] = []  # of the others

    def update(self, superpixels: Labels, members: tuple[Labels, ...], next_id: int) -> Frame:
        """Take the next frame.

        Args:
            superpixels, members: as for `Tracker.update`.
            next_id: of the first track that is born.

        Raises:
            ValueError: for labels or segments that are negative or not below the number of superpixels; everything is
                forgotten then.
        """
        before, count = self._superpixels, len(members[0])
        try:
            refuse_outside(superpixels, count)
            for member in members[1:]:
                refuse_outside(member, count)
        except ValueError:
            self.reset()
            raise
        self._next = next_id
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
        self, source: Numbers, same: Numbers, members: tuple[Labels, ...], areas: npt.NDArray[np.float32]
    ) -> None:
        for number, member in enumerate(members[1:]):
            level = self._levels[number].followed(
                source, member, areas, self.rule, next_id=self._next, frame=self._frame
            )
            self._levels[number] = level
            self._next = max(self._next, int(level.ids[-1]) + 1)
        self._follow_superpixels(same)

    def _follow_superpixels(self, same: Numbers) -> None:
        """Level 0 has no memory: a superpixel goes on as the one that it continues, `same`, or is new (-1)."""
        fresh = same < 0
        births = self._next + np.cumsum(fresh) - 1
        self._next += int(fresh.sum())
        ids, born = births, np.full(len(same), self._frame)
        old = ~fresh
        ids[old], born[old] = self._own.ids[same[old]], self._own.born[same[old]]
        self._own = Ids(ids, born)

    def _shown(self, own: Labels, areas: npt.NDArray[np.float32]) -> Frame:
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
        alive = [self._own.ids, *(level.ids for level in self._levels)]
        return Frame(members, tuple(ids), tuple(ages), alive, self._next)


@dataclass(frozen=True)
class Ids:
    """Tracks of the superpixels: int64 [superpixels] each, as in `Membership`."""

    ids: Numbers
    born: Numbers

    @classmethod
    def none(cls) -> Ids:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))
