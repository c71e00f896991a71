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

    @classmethod
    def showing(cls, column: npt.NDArray[np.int64], level: Membership) -> Membership:
        """The tracks of `level` with the superpixels that they are shown with, not those that they remember."""
        return cls(one_hot(column, len(level.ids)), column, level.ids, level.born)

    def carried(self, source: npt.NDArray[np.int64]) -> Membership:
        """The same tracks for the superpixels of the next frame, each of which continues `source[i]` of this one."""
        return Membership(self.shares[source], self.current[source], self.ids, self.born)

    def match(self, member: Labels, areas: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Column of the track that each segment continues, or -1: int64 [segments].

        Args:
            member: int32 [superpixels], today's segment of each.
            areas: float32 [superpixels], pixels.
        """
        return assign((one_hot(member, int(member.max()) + 1) * areas[:, None]).T @ self.shares)

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
        shares = np.pad(self.shares, ((0, 0), (0, len(newborn)))) * np.float32(1 - rate)
        rows = np.arange(len(member))
        shares[rows, columns[member]] += np.float32(rate)
        best = shares.argmax(1)
        stays = shares[rows, best] <= shares[rows, self.current] + np.float32(margin)
        current = np.where(stays, self.current, best)
        alive = shares.max(0) > _FORGOTTEN
        alive[current] = True
        place = np.where(alive, np.cumsum(alive) - 1, -1)
        ids = np.append(self.ids, next_id + np.arange(len(newborn)))
        born = np.append(self.born, np.full(len(newborn), frame))
        kept = shares[:, alive]
        kept /= kept.sum(1, keepdims=True)
        return Membership(kept, place[current], ids[alive], born[alive]), len(newborn)


def one_hot(member: Labels, count: int) -> npt.NDArray[np.float32]:
    """float32 [superpixels, count], 1 where the superpixel belongs to the segment."""
    table = np.zeros((len(member), count), np.float32)
    table[np.arange(len(member)), member] = 1
    return table


def parents(finer: Membership, coarser: Membership, areas: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Column of the coarser level that most of each finer track lies in, by area: int64 [finer tracks]."""
    votes = (finer.shares * areas[:, None]).T @ (
        one_hot(coarser.current, len(coarser.ids)) + np.float32(1e-3) * coarser.shares  # the mean decides ties
    )
    return votes.argmax(1)
