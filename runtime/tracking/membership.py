"""What a level remembers: how much each superpixel belongs to each track, as a running mean over the frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_sdk.runtime.tracking.assignment import assign, refuse_outside

Labels = npt.NDArray[np.int32]
Shares = npt.NDArray[np.float32]
Columns = npt.NDArray[np.int64]

_FORGOTTEN = np.float32(0.02)  # share of its best superpixel below which a track is dead
_REMEMBERED = np.float32(1e-3)  # weight of what is remembered beside what is shown


@dataclass(frozen=True)
class Rule:
    """How a level follows.

    Attributes:
        rate: weight of each frame in the running mean, 0 < rate <= 1.
        margin: how much more a superpixel must belong to another track before it goes over.
    """

    rate: float
    margin: float


@dataclass
class Membership:
    """The tracks of one level.

    Attributes:
        shares: float32 [superpixels, tracks]; rows add up to 1, but for what dead tracks left missing.
        current: int64 [superpixels], the column that each superpixel is shown with.
        ids: int64 [tracks], unique in the life of a tracker, ascending.
        born: int64 [tracks], the frame of the birth.
    """

    shares: Shares
    current: Columns
    ids: Columns
    born: Columns

    @classmethod
    def first(cls, member: Labels, first_id: int, frame: int) -> Membership:
        """Every segment of the first frame is a track: int32 [superpixels], segments 0..n-1."""
        count = int(member.max()) + 1
        ids = np.arange(first_id, first_id + count, dtype=np.int64)
        return cls(one_hot(member, count), member.astype(np.int64), ids, np.full(count, frame, np.int64))

    def followed(
        self, source: Columns, member: Labels, areas: Shares, rule: Rule, *, next_id: int, frame: int
    ) -> Membership:
        """The running mean with one more frame, births and deaths.

        Args:
            source: int64 [superpixels], the superpixel of the frame before that each of today's continues.
            member: int32 [superpixels], today's segment of each, 0..n-1.
            areas: float32 [superpixels], pixels.
            rule: see `Rule`.
            next_id: id of the first track that is born.
            frame: number of this frame.
        """
        shares, current, columns = level(self.shares, self.current, source, member, areas, rule.rate, rule.margin)
        births, ids, born = int(columns[-1]) + 1 - len(self.ids), self.ids, self.born
        if births > 0:
            ids = np.concatenate([ids, np.arange(next_id, next_id + births)])
            born = np.concatenate([born, np.full(births, frame)])
        return Membership(shares, current, ids[columns], born[columns])


def level(
    shares: Shares, current: Columns, source: Columns, member: Labels, areas: Shares, rate: float, margin: float
) -> tuple[Shares, Columns, Columns]:
    """The step of `Membership.followed` on arrays.

    Returns:
        Shares and current columns of this frame, and which of the old columns, or of the newborn ones after them, each
        column is.

    Raises:
        ValueError: for a source, a current column or a segment that does not exist.
    """
    count, tracks = len(member), shares.shape[1]
    refuse_outside(source, len(shares))
    refuse_outside(current[source], tracks)
    refuse_outside(member, int(member.max()) + 1)
    carried = shares[source]
    column = assign(group_sums(carried * areas[:, None], member, int(member.max()) + 1))
    newborn = np.flatnonzero(column < 0)
    column[newborn] = tracks + np.arange(len(newborn))
    mixed = np.zeros((count, tracks + len(newborn)), np.float32)
    np.multiply(carried, np.float32(1 - rate), out=mixed[:, :tracks])
    rows, last = np.arange(count), current[source]
    mixed[rows, column[member]] += np.float32(rate)
    best = mixed.argmax(1)
    now = np.where(mixed[rows, best] <= mixed[rows, last] + np.float32(margin), last, best)
    alive = mixed.max(0) > _FORGOTTEN
    alive[now] = True
    return mixed[:, alive], (np.cumsum(alive) - 1)[now], np.flatnonzero(alive)


def one_hot(member: Labels, count: int) -> npt.NDArray[np.float32]:
    """float32 [superpixels, count], 1 where the superpixel belongs to the segment."""
    table = np.zeros((len(member), count), np.float32)
    table[np.arange(len(member)), member] = 1
    return table


def parents(column: Labels, count: int, coarser: Membership, areas: Shares) -> Columns:
    """Column of the coarser level that most of each finer track lies in, by area: int64 [count].

    Args:
        column: int32 [superpixels], the finer track that each is shown with, 0..count-1, none without a superpixel.
        count: number of finer tracks.
        coarser: the level above.
        areas: float32 [superpixels], pixels.

    Raises:
        ValueError: for a column that does not exist.
    """
    refuse_outside(column, count)
    refuse_outside(coarser.current, coarser.shares.shape[1])
    belongs = _REMEMBERED * coarser.shares  # what is remembered decides ties
    belongs[np.arange(len(column)), coarser.current] += 1
    belongs *= areas[:, None]
    return group_sums(belongs, column, count).argmax(1)


def group_sums(values: npt.NDArray[np.float32], groups: npt.NDArray[np.integer], count: int) -> npt.NDArray[np.float32]:
    """Sums of the rows of each group: float32 [count, columns] from [rows, columns] and int [rows]."""
    sums = np.zeros((count, values.shape[1]), np.float32)
    np.add.at(sums, groups, values)  # row by row, as the compiled code: reduceat adds in another order
    return sums
