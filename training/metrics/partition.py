"""How well does a partition of an image agree with those that people drew? Region and boundary measures.

All functions take integer label maps [h, w]; label values carry no meaning and need not be contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError

Labels = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

BOUNDARY_TOLERANCE = 0.0075  # of the image diagonal, as the BSDS benchmark


def contingency(first: Labels, second: Labels) -> npt.NDArray[np.int64]:
    """Pixels shared by each pair of segments: int64 [segments of `first`, segments of `second`]."""
    check_pair(first, second)
    (a, rows), (b, columns) = compact(first), compact(second)
    return np.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns)


def compact(labels: Labels) -> tuple[npt.NDArray[np.int64], int]:
    """Labels renumbered 0..n-1 in ascending order, flattened, and n. (np.unique sorts all pixels; this counts them.)"""
    flat = labels.ravel()
    low, high = int(flat.min()), int(flat.max())
    if high - low > 4 * flat.size:
        values, inverse = np.unique(flat, return_inverse=True)
        return inverse.reshape(-1).astype(np.int64), len(values)
    shifted = flat.astype(np.int64) - low
    used = np.bincount(shifted, minlength=high - low + 1) > 0
    return (np.cumsum(used) - 1)[shifted], int(used.sum())


def covering(table: npt.NDArray[np.int64]) -> float:
    """Covering of the row partition by the column partition (Arbelaez et al., PAMI 2011, section 3.1.3), 0..1.

    Every segment of the rows (the ground truth) counts with its area and the best intersection over union that any
    segment of the columns reaches with it.
    """
    return float((table.sum(1) * _overlaps(table).max(1)).sum() / table.sum())


def _overlaps(table: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    return table / union


def rand_index(table: npt.NDArray[np.int64]) -> float:
    """Share of pixel pairs that both partitions put together or both keep apart (Rand, 1971).

    Its mean over annotators is the probabilistic Rand index (Unnikrishnan et al., PAMI 2007).
    """
    n = float(table.sum())
    together = float((table.astype(np.float64) ** 2).sum())
    rows, columns = (float((table.sum(axis).astype(np.float64) ** 2).sum()) for axis in (1, 0))
    pairs = n * (n - 1)
    return 1.0 if pairs == 0 else (pairs + 2 * together - rows - columns) / pairs


def variation_of_information(table: npt.NDArray[np.int64]) -> float:
    """H(first | second) + H(second | first) in bits (Meila, 2005): 0 for equal partitions."""
    p = table / table.sum()

    def entropy(values: npt.NDArray[np.float64]) -> float:
        values = values[values > 0]
        return float(-(values * np.log2(values)).sum())

    return max(0.0, 2 * entropy(p.ravel()) - entropy(p.sum(0)) - entropy(p.sum(1)))


def region_boundaries(labels: Labels) -> Mask:
    """One pixel wide outlines of the segments: bool [h, w], equal to the `Boundaries` that BSDS500 stores."""
    from skimage.morphology import thin

    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    edges[:-1, :-1] |= labels[:-1, :-1] != labels[1:, 1:]
    return np.asarray(thin(edges), bool)


def match_boundaries(first: Mask, second: Mask, tolerance: float) -> tuple[Mask, Mask]:
    """Which boundary pixels of two maps have a partner in the other one within `tolerance` pixels, one to one.

    A maximum matching of the bipartite graph of pixels at most `tolerance` apart. Martin et al. (PAMI 2004) ask for the
    nearest pairs among all such matchings, which does not change how many pixels are matched.

    Returns:
        Two masks of the shape of the inputs: the matched pixels of each.
    """
    check_pair(first, second)
    matched_first, matched_second = np.zeros(first.shape, bool), np.zeros(second.shape, bool)
    points, others = np.argwhere(first), np.argwhere(second)
    if len(points) and len(others):
        rows, columns = _pairs_within(points, others, first.shape, tolerance)
        partner = maximum_matching(rows, columns, len(points), len(others))
        hit = partner >= 0
        matched_first[tuple(points[hit].T)] = True
        matched_second[tuple(others[partner[hit]].T)] = True
    return matched_first, matched_second


def _pairs_within(
    points: npt.NDArray[np.intp], others: npt.NDArray[np.intp], shape: tuple[int, ...], tolerance: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Indices (into points, into others) of all pairs of pixels at most `tolerance` apart, nearest pairs first."""
    reach = int(np.floor(tolerance))
    index = np.full((shape[0] + 2 * reach, shape[1] + 2 * reach), -1, np.intp)
    index[others[:, 0] + reach, others[:, 1] + reach] = np.arange(len(others))
    rows, columns = [], []
    offsets = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    for y, x in sorted(offsets, key=lambda offset: offset[0] ** 2 + offset[1] ** 2):
        if y * y + x * x > tolerance * tolerance:
            break
        neighbour = index[points[:, 0] + reach + y, points[:, 1] + reach + x]
        found = np.flatnonzero(neighbour >= 0)
        rows.append(found)
        columns.append(neighbour[found])
    return np.concatenate(rows), np.concatenate(columns)


def maximum_matching(
    rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], num_rows: int, num_columns: int
) -> npt.NDArray[np.intp]:
    """Maximum cardinality matching of a bipartite graph: the column of each row, -1 without one: [num_rows].

    Edges are taken greedily in the given order, then augmenting paths are searched from the rows left over. Columns
    reached by a search that fails can be in no later augmenting path and are left out from then on. (SciPy's
    maximum_bipartite_matching takes seconds on the outlines of one photograph, as it starts from nothing.)

    Args:
        rows, columns: the two ends of each edge, promising edges first.
        num_rows, num_columns: vertices of each side.
    """
    order = np.argsort(rows, kind="stable")
    ends = np.searchsorted(rows[order], np.arange(num_rows + 1)).tolist()
    targets = columns[order].tolist()
    left, right = [-1] * num_rows, [-1] * num_columns
    for u, v in zip(rows.tolist(), columns.tolist(), strict=True):
        if left[u] < 0 and right[v] < 0:
            left[u], right[v] = v, u
    hopeless = bytearray(num_columns)
    for start in [u for u in range(num_rows) if left[u] < 0]:
        reached: dict[int, int] = {}
        free = _search(start, ends, targets, right, hopeless, reached)
        if free < 0:
            for v in reached:
                hopeless[v] = 1
            continue
        while True:  # exchange matched and unmatched edges along the path, back to its start
            u = reached[free]
            following, left[u], right[free] = left[u], free, u
            if u == start:
                break
            free = following
    return np.array(left, np.intp)


def _search(
    start: int, ends: list[int], targets: list[int], right: list[int], hopeless: bytearray, reached: dict[int, int]
) -> int:
    """A free column at the end of an alternating path from row `start`, or -1; fills column -> row it came from."""
    queue = [start]
    for u in queue:
        for v in targets[ends[u] : ends[u + 1]]:
            if v in reached or hopeless[v]:
                continue
            reached[v] = u
            if right[v] < 0:
                return v
            queue.append(right[v])
    return -1


@dataclass(frozen=True)
class BoundaryCounts:
    """Boundary pixels of a segmentation and of its annotators, and how many of them are matched.

    As in the BSDS benchmark a pixel of the segmentation is right when any annotator has it, and every annotator's
    pixels count for recall. Counts of images add up to those of a data set.
    """

    matched: int = 0
    predicted: int = 0
    recalled: int = 0
    annotated: int = 0

    @property
    def precision(self) -> float:
        return self.matched / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.recalled / self.annotated if self.annotated else 0.0

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def boundary_counts(
    boundary: Mask, annotators: Sequence[Mask], tolerance: float = BOUNDARY_TOLERANCE
) -> BoundaryCounts:
    """Compare one boundary map with those of several annotators.

    Args:
        boundary: bool [h, w], see `region_boundaries`.
        annotators: bool [h, w] each.
        tolerance: largest distance of a match as a part of the image diagonal.
    """
    limit = tolerance * float(np.hypot(*boundary.shape))
    matched = np.zeros(boundary.shape, bool)
    recalled = 0
    for truth in annotators:
        mine, theirs = match_boundaries(boundary, truth, limit)
        matched |= mine
        recalled += int(theirs.sum())
    annotated = sum(int(truth.sum()) for truth in annotators)
    return BoundaryCounts(int(matched.sum()), int(boundary.sum()), recalled, annotated)


@dataclass(frozen=True)
class PartitionScores:
    """Agreement of one segmentation with all annotators of its image."""

    segments: int
    covering: float  # mean over annotators, 0..1, higher is better
    rand: float  # probabilistic Rand index, 0..1, higher is better
    information: float  # mean variation of information in bits, lower is better
    boundary: BoundaryCounts


def partition_scores(
    labels: Labels,
    annotators: Sequence[Labels],
    boundaries: Sequence[Mask] | None = None,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> PartitionScores:
    """All measures of one segmentation.

    Args:
        labels: integer [h, w].
        annotators: integer [h, w] each, at least one.
        boundaries: their boundary maps; default: `region_boundaries` of each.
        tolerance: see `boundary_counts`.

    Raises:
        InputError: without annotators or for maps of another size.
    """
    if not annotators:
        raise InputError("There is no annotation to compare with.")
    tables = [contingency(truth, labels) for truth in annotators]
    truths = [region_boundaries(truth) for truth in annotators] if boundaries is None else boundaries
    return PartitionScores(
        segments=tables[0].shape[1],
        covering=float(np.mean([covering(table) for table in tables])),
        rand=float(np.mean([rand_index(table) for table in tables])),
        information=float(np.mean([variation_of_information(table) for table in tables])),
        boundary=boundary_counts(region_boundaries(labels), truths, tolerance),
    )


@dataclass(frozen=True)
class Summary:
    """Means over a data set; the boundary measures come from counts added over the images."""

    segments: float
    covering: float
    rand: float
    information: float
    precision: float
    recall: float
    f: float


def summarise(scores: Sequence[PartitionScores]) -> Summary:
    """One level over all images."""
    counts = sum((score.boundary for score in scores), BoundaryCounts())
    return Summary(
        segments=float(np.mean([score.segments for score in scores])),
        covering=float(np.mean([score.covering for score in scores])),
        rand=float(np.mean([score.rand for score in scores])),
        information=float(np.mean([score.information for score in scores])),
        precision=counts.precision,
        recall=counts.recall,
        f=counts.f,
    )


@dataclass(frozen=True)
class HierarchyScores:
    """A hierarchy over a data set: each level, and each measure at its best level."""

    levels: tuple[Summary, ...]
    best_per_dataset: dict[str, float]  # "ods": one level for all images
    best_level: dict[str, int]  # the level (index) behind each of these
    best_per_image: dict[str, float]  # "ois": the best level of each image


MEASURES = {"covering": 1, "rand": 1, "information": -1, "f": 1}  # sign: is more better?


def summarise_hierarchy(images: Sequence[Sequence[PartitionScores]]) -> HierarchyScores:
    """Optimal data set scale and optimal image scale over the levels of a hierarchy.

    Args:
        images: for each image the scores of its levels; the same number of levels throughout.

    Raises:
        InputError: without images or for unequal numbers of levels.
    """
    if not images or len({len(levels) for levels in images}) != 1:
        raise InputError(
            "There are no images to summarise." if not images else "The images have different numbers of levels."
        )
    summaries = tuple(summarise([levels[level] for levels in images]) for level in range(len(images[0])))
    ods, where, ois = {}, {}, {}
    for name, sign in MEASURES.items():
        values = [sign * getattr(summary, name) for summary in summaries]
        where[name] = int(np.argmax(values))
        ods[name] = getattr(summaries[where[name]], name)
        best = [max(levels, key=lambda score: sign * _value(score, name)) for levels in images]
        ois[name] = getattr(summarise(best), name)
    return HierarchyScores(summaries, ods, where, ois)


def _value(score: PartitionScores, name: str) -> float:
    return score.boundary.f if name == "f" else getattr(score, name)


def check_pair(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> None:
    """Raises InputError unless both are [h, w] of one size."""
    if first.shape != second.shape or first.ndim != 2 or first.size == 0:
        raise InputError(
            f"The label maps are not of one image: {list(first.shape)} and {list(second.shape)}.",
            remedy="resize one of them with nearest-neighbour interpolation",
        )
