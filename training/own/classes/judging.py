"""How good a classifier is on the images that judge: numbers from class scores, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.training.metrics.calibration import best_class, calibrated, choose_threshold, log_softmax, naming

CALIBRATED_FROM = 30  # images; from fewer neither temperature nor threshold is read
PRECISION = 0.8  # share of right names that the threshold asks for
CERTAIN = 1e-3  # two classes nearer than this in probability are a tie


@dataclass
class Judged:
    """A classifier's answers.

    Attributes:
        logits: float [N, classes].
        labels: true classes, [N].
        temperature: that the scores are divided by.
        unsure_below: probability below which no class is named; 0: always one.
        calibration: of `calibrated`; empty where there were too few images.
        named: rows of `naming`.
    """

    logits: npt.NDArray[np.floating]
    labels: npt.NDArray[np.integer]
    temperature: float = 1.0
    unsure_below: float = 0.0
    calibration: dict[str, Any] | None = None
    named: list[dict[str, float | None]] | None = None

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.logits.argmax(1), np.int64)

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Calibrated, [N, classes]."""
        return np.exp(log_softmax(self.logits, self.temperature))

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Images by true and predicted class: [classes, classes]."""
        count = self.logits.shape[1]
        return np.bincount(self.labels * count + self.predicted, minlength=count**2).reshape(count, count)

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * float((self.predicted == self.labels).mean())

    @property
    def recalls(self) -> npt.NDArray[np.float64]:
        """Share of each class that is found, in percent; nan for classes without an image: [classes]."""
        table = self.confusion
        total = table.sum(1)
        return np.divide(100.0 * np.diag(table), total, out=np.full(len(total), np.nan), where=total > 0)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the classes' recalls, in percent."""
        return float(np.nanmean(self.recalls))

    def worst(self, count: int) -> npt.NDArray[np.int64]:
        """Images with the least probability of their true class among the wrong ones, the worst first."""
        true = self.probabilities[np.arange(len(self.labels)), self.labels]
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(true[wrong], kind="stable")][:count]


def judge(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Judged:
    """The answers with a temperature and a threshold where there are enough images to read them from."""
    judged = Judged(logits, labels)
    if len(labels) < CALIBRATED_FROM:
        return judged
    judged.calibration = calibrated(logits, labels)
    judged.temperature = judged.calibration["temperature"]
    confidence, correct = best_class(logits, labels, judged.temperature)
    threshold = choose_threshold(confidence, correct, PRECISION)
    # 1.0: no threshold makes names right so often. A model that never names anything would help nobody.
    judged.unsure_below = 0.0 if threshold.unsure_below >= 1 else round(threshold.unsure_below, 4)
    judged.named = naming(confidence, correct)
    return judged


def disagreements(logits: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> int:
    """Images for which two sets of class scores [N, classes] have different best classes and no tie."""
    different = logits.argmax(1) != other.argmax(1)
    chances = np.sort(np.exp(log_softmax(logits)), 1)
    return int((different & (chances[:, -1] - chances[:, -2] > CERTAIN)).sum())
