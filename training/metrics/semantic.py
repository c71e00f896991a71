"""Class maps against ground truth: intersection over union and accuracies from one confusion matrix."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.training.engine.distributed import World

ClassMap = npt.NDArray[np.integer]


class ConfusionMatrix:
    """Pixels by true and predicted class, added up over images.

    Args:
        num_classes: classes 0..n-1. True labels outside (such as 255) are ignored.
    """

    def __init__(self, num_classes: int) -> None:
        self.matrix = np.zeros((num_classes, num_classes), np.int64)  # [true, predicted]
        self.images = 0

    def update(self, prediction: ClassMap, target: ClassMap) -> None:
        """Add one image or batch.

        Args:
            prediction: integer array of classes 0..n-1.
            target: integer array of the same shape.

        Raises:
            InputError: for unequal shapes, or a predicted class that does not exist where the target counts.
        """
        if prediction.shape != target.shape:
            raise InputError(
                f"The prediction has not the size of its ground truth: {list(prediction.shape)} and "
                f"{list(target.shape)}.",
            )
        count = len(self.matrix)
        valid = (target >= 0) & (target < count)
        true, predicted = target[valid].astype(np.int64), prediction[valid].astype(np.int64)
        if predicted.size and (predicted.min() < 0 or predicted.max() >= count):
            raise InputError(f"Predicted classes {predicted.min()}..{predicted.max()} are not all in 0..{count - 1}.")
        self.matrix += np.bincount(true * count + predicted, minlength=count * count).reshape(count, count)
        self.images += 1

    def __iadd__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        self.matrix += other.matrix
        self.images += other.images
        return self

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union per class, nan for classes that occur in neither map: float64 [n]."""
        hit = np.diag(self.matrix).astype(np.float64)
        union = self.matrix.sum(0) + self.matrix.sum(1) - hit
        return np.divide(hit, union, out=np.full(len(hit), np.nan), where=union > 0)

    def mean_iou(self, absent: Literal["skip", "zero"] = "skip") -> float:
        """Mean intersection over union, 0..1.

        Args:
            absent: leave classes out that never occur ("skip"), or count them as 0 ("zero", as the VOC programs do).
        """
        iou = self.iou
        values = np.nan_to_num(iou) if absent == "zero" else iou[~np.isnan(iou)]
        return float(values.mean()) if values.size else float("nan")

    @property
    def pixel_accuracy(self) -> float:
        """Share of valid pixels with the right class."""
        total = self.matrix.sum()
        return float(np.diag(self.matrix).sum() / total) if total else float("nan")

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes of the ground truth of the share of their pixels that is found."""
        support = self.matrix.sum(1)
        present = support > 0
        return float((np.diag(self.matrix)[present] / support[present]).mean()) if present.any() else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Scores in percent with two decimals, per class too (None for classes that never occur)."""
        return {
            "images": self.images,
            "mean_iou": round(100 * self.mean_iou(), 2),
            "pixel_accuracy": round(100 * self.pixel_accuracy, 2),
            "mean_accuracy": round(100 * self.mean_accuracy, 2),
            "iou": [None if np.isnan(value) else round(100 * float(value), 2) for value in self.iou],
        }


def image_jaccard(prediction: ClassMap, target: ClassMap, num_classes: int) -> float:
    """Macro Jaccard index of one image, 0..1: the mean over the classes that occur in either map."""
    confusion = ConfusionMatrix(num_classes)
    confusion.update(prediction, target)
    return confusion.mean_iou()


def together(confusion: ConfusionMatrix, world: World) -> ConfusionMatrix:
    """The sum over all processes, on every process."""
    total = ConfusionMatrix(len(confusion.matrix))
    for part in world.gather(confusion):
        total += part
    return total
