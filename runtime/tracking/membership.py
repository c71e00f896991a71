"""What a level remembers: how much each superpixel belongs to each track, as a running mean over the frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_sdk.runtime.tracking.assignment import assign

Labels = npt.NDArray[np.int32]

_FORGOTTEN = 0.02  # share of its best superpixel below which a track is dead


@dataclass
class Membership:
    """The tracks of one level.

    Attributes:
        shares: float32 [superpixels, tracks], rows add up to 1.
        current: int64 [superpixels], the column that each superpixel is shown with.
        ids: int64 [tracks], unique in the life of a tracker.
        born: int64 [tracks], the frame of the birth.
    """

    shares: npt.NDArray[np.float32]
    current: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    born: npt.NDArray[np.int64]

    @classmethod
    def first(cls, member: Labels, first_id: int, frame: int) -> Membership:
        """Every segment of the first frame is a track: int32 [superpixels], segments 0..n-1."""
        count = int(member.max()) + 1
        ids = np.arange(first_id, first_id + count, dtype=np.int64)
        return cls(one_hot(member, count), member.astype(np.int64), ids, np.full(count, frame, np.int64))

    def carried(self, source: npt.NDArray[np.int64]) -> Membership:
        """The same tracks for the superpixels of the next frame, each of which continues `source[i]` of this one."""
        return Membership(self.shares[source], self.current[source], self.ids, self.born)

    def match(self, member: Labels, areas: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Column of the track that each segment continues, or -1: int64 [segments].

        Args:
            member: int32 [superpixels], today's segment of each.
            areas: float32 [superpixels], pixels.
        """
        return assign(group_sums(self.shares * areas[:, None], member, int(member.max()) + 1))

    def updated(
        self, member: Labels, track: npt.NDArray[np.int64], *, rate: float, margin: float, next_id: int, frame: int
    ) -> tuple[Membership, int]:
        """The running mean with one more frame, births and deaths.

        Args:
            member: int32 [superpixels], today's segment of each.
            track: of `match`; segments without a track become new ones.
            rate: weight of this frame, 0 < rate <= 1.
            margin: how much more a superpixel must belong to another track before it goes over.
            next_id: id of the first track that is born.
            frame: number of this frame.

        Returns:
            The new state, and the number of births.
        """
        newborn = np.flatnonzero(track < 0)
        columns = track.copy()
        columns[newborn] = len(self.ids) + np.arange(len(newborn))
        shares = np.zeros((len(member), len(self.ids) + len(newborn)), np.float32)
        np.multiply(self.shares, np.float32(1 - rate), out=shares[:, : len(self.ids)])
        rows = np.arange(len(member))
        shares[rows, columns[member]] += np.float32(rate)
        best = shares.argmax(1)
        stays = shares[rows, best] <= shares[rows, self.current] + np.float32(margin)
        current = np.where(stays, self.current, best)
        alive = shares.max(0) > _FORGOTTEN
        alive[current] = True
        place = np.where(alive, np.cumsum(alive) - 1, -1)
        ids = np.concatenate([self.ids, next_id + np.arange(len(newborn))])
        born = np.concatenate([self.born, np.full(len(newborn), frame)])
        kept = shares[:, alive]
        kept /= kept.sum(1, keepdims=True)
        return Membership(kept, place[current], ids[alive], born[alive]), len(newborn)


def one_hot(member: Labels, count: int) -> npt.NDArray[np.float32]:
    """float32 [superpixels, count], 1 where the superpixel belongs to the segment."""
    table = np.zeros((len(member), count), np.float32)
    table[np.arange(len(member)), member] = 1
    return table


def parents(
    column: npt.NDArray[np.int64], count: int, coarser: Membership, areas: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Column of the coarser level that most of each finer track lies in, by area: int64 [count].

    Args:
        column: int64 [superpixels], the finer track that each is shown with, 0..count-1.
        count: number of finer tracks; one without a superpixel gets column 0.
        coarser: the level above.
        areas: float32 [superpixels], pixels.
    """
    belongs = np.float32(1e-3) * coarser.shares  # what is remembered decides ties
    belongs[np.arange(len(column)), coarser.current] += 1
    belongs *= areas[:, None]
    return group_sums(belongs, column, count).argmax(1)


def group_sums(values: npt.NDArray[np.float32], groups: npt.NDArray[np.integer], count: int) -> npt.NDArray[np.float32]:
    """Sums of the rows of each group: float32 [count, columns] from [rows, columns] and int [rows]."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
    sums = np.zeros((count, values.shape[1]), np.float32)
    sums[ordered[starts]] = np.add.reduceat(values[order], starts, axis=0)
    return sums
