"""Which of today's regions is which of yesterday's: overlaps of label maps and a one-to-one assignment. NumPy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int32]
Weights = npt.NDArray[np.floating]

_SAMPLES = 128  # of a row and a column that overlaps are counted on; more pixels do not change the choice


def superpixels(
    now: Labels, before: Labels, count_now: int, count_before: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """How today's superpixels follow from those of the frame before.

    Args:
        now: int32 [h, w], labels 0..count_now-1.
        before: int32 [h, w], labels 0..count_before-1.

    Returns:
        Pixels of each, float32 [count_now]; the superpixel before that it shares most pixels with, int64 [count_now];
        and the same where that one has no better successor, else -1.

    Raises:
        ValueError: for labels beyond their counts, of the map before where it is looked at.
    """
    refuse_outside(now, count_now)
    areas = np.bincount(now.ravel(), minlength=count_now).astype(np.float32)
    common = overlaps(now, before, count_now, count_before)
    source = common.argmax(1)
    mutual = (common.argmax(0)[source] == np.arange(count_now)) & (common.max(1) > 0)
    return areas, source, np.where(mutual, source, -1)


def outside() -> ValueError:
    """What is said of a label that is not in its range."""
    return ValueError("tracking: a label is negative or not below the count that it came with")


def refuse_outside(labels: npt.NDArray[np.integer], count: int) -> None:
    """Raises ValueError where a label is none of 0..count-1."""
    if labels.size and not (labels.min() >= 0 and labels.max() < count):
        raise outside()


def sampling_step(shape: tuple[int, ...]) -> int:
    """Every how many rows and columns of a map overlaps are counted."""
    return max(1, -(-min(shape) // _SAMPLES))


def overlaps(now: Labels, before: Labels, count_now: int, count_before: int) -> npt.NDArray[np.int64]:
    """Pixels that each region of one map shares with each of the other: int64 [count_now, count_before].

    Maps of more than 128 pixels a side are sampled on every second, third, ... row and column, so that the counts are
    fractions of the true ones. A region that the samples miss has a row of zeros.

    Args:
        now: int32 [h, w], labels 0..count_now-1.
        before: int32 [h, w], labels 0..count_before-1.
    """
    step = sampling_step(now.shape)
    refuse_outside(before[::step, ::step], count_before)
    pairs = now[::step, ::step].ravel() * np.int64(count_before) + before[::step, ::step].ravel()
    return np.bincount(pairs, minlength=count_now * count_before).reshape(count_now, count_before)


def assign(weights: Weights) -> npt.NDArray[np.int64]:
    """A column for each row, none twice: pairs that prefer each other, then again among what is left.

    That is the greedy assignment (the heaviest pair first), in a few steps over the whole matrix. It has at least half
    of the weight of the best assignment, and on overlaps of real segments nearly all of it.

    Args:
        weights: [rows, columns], 0 or more; a pair of weight 0 is never chosen.

    Returns:
        int64 [rows]; -1 for a row that finds no column.
    """
    chosen = np.full(weights.shape[0], -1, np.int64)
    rows, columns, left = np.arange(weights.shape[0]), np.arange(weights.shape[1]), np.asarray(weights)
    while left.size:
        best = left.argmax(1)
        here = np.arange(len(rows))
        pair = (left.argmax(0)[best] == here) & (left[here, best] > 0)
        if not pair.any():
            break
        chosen[rows[pair]] = columns[best[pair]]
        free = np.ones(len(columns), bool)
        free[best[pair]] = False
        left = left[~pair][:, free]
        rows, columns = rows[~pair], columns[free]
    return chosen
