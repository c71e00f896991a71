"""How good predictions along a taxonomy are: every level, the whole path, and whether it is a path at all.

Predictions and labels are integer [N, levels], fine to coarse. All values are percentages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cast_sdk.taxonomy import Taxonomy, best_path, on_a_path, path_table

Classes = npt.NDArray[np.integer]


def level_accuracy(predicted: Classes, true: Classes) -> npt.NDArray[np.float64]:
    """Share of images whose class of a level is right: float64 [levels]."""
    return np.asarray(100 * (predicted == true).mean(0), np.float64)


def full_path_accuracy(predicted: Classes, true: Classes) -> float:
    """FPA: share of images whose classes of all levels are right."""
    return float(100 * (predicted == true).all(1).mean())


def tree_inconsistency(predicted: Classes, table: npt.NDArray[np.int32]) -> float:
    """TICE: share of images whose classes, right or wrong, form no path of the tree. Lower is better.

    Args:
        predicted: integer [N, levels].
        table: the paths, of `cast_sdk.taxonomy.path_table`.
    """
    return float(100 * (1 - on_a_path(predicted, table).mean()))


def weighted_average_precision(accuracy: Sequence[float], classes: Sequence[int]) -> float:
    """Level accuracies weighted by their classes. Unverified: the publication's own formula was not at hand."""
    return float(np.average(accuracy, weights=classes))


def flat_scores(logits: npt.NDArray[np.floating], levels: Taxonomy) -> list[npt.NDArray[np.float64]]:
    """What a classifier of the finest level says about all levels: log of its members' summed probabilities.

    Args:
        logits: [N, finest classes].
        levels: with their tree, fine to coarse.
    """
    table = path_table(levels)
    assert table is not None
    scores = logits.astype(np.float64)
    fine = np.exp(scores - np.logaddexp.reduce(scores, 1, keepdims=True))
    summed = [fine @ np.eye(level.num_classes)[table[:, index]] for index, level in enumerate(levels)]
    return [np.log(np.maximum(level, 1e-300)) for level in summed]


class PathTally:
    """Sums over batches; processes share them by adding up `values`."""

    def __init__(self, levels: Taxonomy) -> None:
        """Levels that know their tree, fine to coarse."""
        table = path_table(levels)
        assert table is not None
        self.levels, self.table = levels, table
        self.values = np.zeros(len(levels) + 4)  # right per level; all right; on no path; best path right; images

    def add(self, logits: Sequence[npt.NDArray[np.floating]], targets: npt.NDArray[np.integer]) -> None:
        """Add a batch.

        Args:
            logits: scores per level, [N, classes] fine to coarse; or of the finest level alone, see `flat_scores`.
            targets: finest labels, [N].
        """
        if len(logits) == 1:
            logits = flat_scores(logits[0], self.levels)
        predicted = np.stack([level.argmax(1) for level in logits], 1)
        right = predicted == self.table[targets]
        off = ~on_a_path(predicted, self.table)
        best = best_path([level - np.logaddexp.reduce(level, 1, keepdims=True) for level in logits], self.table)
        whole = best[:, 0] == targets  # the finest class names the path
        self.values += [*right.sum(0), right.all(1).sum(), off.sum(), whole.sum(), len(targets)]

    def metrics(self, values: npt.NDArray[np.float64] | None = None) -> dict[str, float]:
        """Percentages from the sums (of all processes): `top1_NAME` of each level, `fpa`, `tice`, `fpa_consistent` (of
        the most probable path of the tree) and `wap_unverified`."""
        sums = self.values if values is None else values
        *right, whole, off, best = (100 * sums[:-1] / max(sums[-1], 1)).tolist()
        levels = {f"top1_{level.name}": value for level, value in zip(self.levels, right, strict=True)}
        wap = weighted_average_precision(right, [level.num_classes for level in self.levels])
        return {**levels, "fpa": whole, "tice": off, "fpa_consistent": best, "wap_unverified": wap}
