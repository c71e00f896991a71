"""How much a reduced artifact differs from the float32 model, in terms that survive a renumbering of segments.

Reduced precision turns near ties of the sampler around, which renumbers segments and splits others, so labels are
matched first: the assignment of segment ids that shares the most pixels (Hungarian method). Then `matched` is the share
of pixels with the same segment, and `iou` the mean intersection over union of the matched segments of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import MissingDependencyError
from cast_sdk.export.verification.photos import Inputs
from cast_sdk.export.verification.report import Check
from cast_sdk.spec import Grouping
from cast_sdk.superpixels import merged_levels

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Thresholds:
    """What a reduced artifact must reach; None: stated, not judged."""

    top1: float | None
    cosine: float | None
    matched: float | None
    iou: float | None


THRESHOLDS = {
    "fp16": Thresholds(top1=0.97, cosine=0.998, matched=0.90, iou=0.80),
    "bf16": Thresholds(top1=0.93, cosine=0.995, matched=0.85, iou=0.75),
    "int8": Thresholds(top1=0.80, cosine=0.97, matched=0.65, iou=0.45),
}


def compare(
    pairs: Iterable[tuple[Arrays, Arrays]], inputs: Inputs, thresholds: Thresholds, grouping: Grouping = "assigned"
) -> list[Check]:
    """Checks of a reduced artifact over several images.

    Args:
        pairs: (reference, reduced) outputs of each image, without batch axis.
        inputs: what both were given.
        thresholds: the bars.
        grouping: of the model: levels that are merged are compared as a `Runtime` gives them.
    """
    scores: dict[str, list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]] = {}
    levels: dict[str, list[tuple[float, float]]] = {}
    for outputs, image, labels in zip(pairs, inputs.image, inputs.superpixels, strict=True):
        expected, found = outputs
        if grouping == "merged":
            expected, found = (one | _merged(one, image, labels) for one in outputs)
        for name in expected:
            if name == "embedding" or name.startswith("logits"):
                scores.setdefault(name, []).append((expected[name], found[name]))
        for name in expected:
            if name.startswith("level") or name == "semantic":
                sizes = np.bincount(labels.ravel(), minlength=len(expected[name]))
                levels.setdefault(name, []).append(label_agreement(name, expected[name], found[name], sizes))
    checks = []
    heads = [name for name in scores if name != "embedding"]
    for name in heads:
        same = [one.argmax() == other.argmax() for one, other in scores[name]]
        checks.append(Check(name, "top1", float(np.mean(same)), thresholds.top1, len(same)))
    for name in heads or ["embedding"]:
        if len(scores[name]) < 2:
            continue
        expected_rows, found_rows = (np.stack(rows).astype(np.float64) for rows in zip(*scores[name], strict=True))
        cosine = centred_cosine(expected_rows, found_rows)
        checks.append(Check(name, "cosine", cosine, thresholds.cosine, len(scores[name])))
    for name, measured in levels.items():
        agreement, overlap = np.mean(measured, axis=0)
        checks.append(Check(name, "matched", float(agreement), thresholds.matched, len(measured)))
        checks.append(Check(name, "iou", float(overlap), thresholds.iou, len(measured)))
    return checks


def _merged(outputs: Arrays, image: npt.NDArray[np.uint8], superpixels: npt.NDArray[np.int32]) -> Arrays:
    """`level1`, ... from soft assignments."""
    count = sum(name.startswith("assignment") for name in outputs)
    assignments = [outputs[f"assignment{number}"] for number in range(1, count + 1)]
    levels = merged_levels(image, superpixels, assignments)
    return {f"level{number}": level for number, level in enumerate(levels, 1)}


def centred_cosine(expected: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> float:
    """Mean cosine of the rows [n, classes] after taking away what all images share, the reference's mean row."""
    mean = expected.mean(0)
    one, other = expected - mean, found - mean
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean((one * other).sum(1) / np.maximum(norms, 1e-30)))


def label_agreement(
    name: str, expected: npt.NDArray[Any], found: npt.NDArray[Any], sizes: npt.NDArray[Any]
) -> tuple[float, float]:
    """Share of pixels that agree and mean IoU of one label output: segments are matched first, classes are not.

    Args:
        name: of the output, `level1..4` or `semantic`.
        expected, found: label of each superpixel, integer [S].
        sizes: pixels of each superpixel, [S].
    """
    return (_same if name == "semantic" else match)(expected, found, sizes)


def assignment_solver() -> Callable[..., tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """SciPy's `linear_sum_assignment`.

    Raises:
        MissingDependencyError: without SciPy.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingDependencyError(
            "SciPy, which matching segments needs, cannot be imported.",
            found=str(error),
            remedy="pip install scipy",
        ) from error
    return linear_sum_assignment


def match(expected: npt.NDArray[Any], found: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> tuple[float, float]:
    """Share of pixels that agree after matching, and mean IoU over the segments of the reference.

    Args:
        expected, found: segment of each superpixel, integer [S].
        sizes: pixels of each superpixel, [S].
    """
    shared = np.zeros((int(expected.max()) + 1, int(found.max()) + 1))
    np.add.at(shared, (expected, found), sizes)
    rows, columns = assignment_solver()(shared, maximize=True)
    common = shared[rows, columns]
    whole, other = shared.sum(1), shared.sum(0)
    union = whole[rows] + other[columns] - common
    used = int((whole > 0).sum())
    return float(common.sum() / shared.sum()), float((common / np.maximum(union, 1)).sum() / used)


def _same(expected: npt.NDArray[Any], found: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> tuple[float, float]:
    """As `match`, for class ids, which need no matching."""
    overlaps = []
    for label in np.unique(expected[sizes > 0]):
        one, other = expected == label, found == label
        overlaps.append(sizes[one & other].sum() / sizes[one | other].sum())
    return float(sizes[expected == found].sum() / sizes.sum()), float(np.mean(overlaps))
