"""Are a classifier's probabilities honest? Temperature, calibration error, and when to say "unsure". NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)  # that `naming` tells of


@dataclass(frozen=True)
class Threshold:
    """The lowest probability at which naming is right often enough."""

    unsure_below: float
    named: float  # share of the images that are named
    precision: float  # share of the named images that are named right; 1 when none is


def log_softmax(logits: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Logarithm of the class probabilities of `logits` [N, classes] at a temperature."""
    scores = logits.astype(np.float64) / temperature
    scores -= scores.max(1, keepdims=True)
    out: npt.NDArray[np.float64] = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return out


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The temperature at which held-out images have the least negative log-likelihood (Guo et al., 2017).

    Args:
        logits: [N, classes], of images that were not trained on.
        labels: [N].

    Raises:
        InputError: without an image or for shapes that do not fit.
    """
    if logits.ndim != 2 or len(logits) == 0 or labels.shape != (len(logits),):
        raise InputError(
            f"Logits {list(logits.shape)} and labels {list(labels.shape)} do not fit.",
            remedy="give logits [N, classes] and labels [N] of at least one image",
        )
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits, float(np.exp(log_temperature)))[rows, labels].mean())

    low, high = np.log(0.05), np.log(20.0)
    golden = (np.sqrt(5) - 1) / 2
    a, b = high - golden * (high - low), low + golden * (high - low)
    at_a, at_b = loss(a), loss(b)
    while high - low > 1e-4:  # the loss has one minimum in the temperature
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - golden * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + golden * (high - low)
            at_b = loss(b)
    return float(np.exp((low + high) / 2))


def best_class(logits: Floats, labels: Labels, temperature: float = 1.0) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Probability of each image's best class, and whether it is the label: [N] and [N] of logits [N, classes]."""
    chances = np.exp(log_softmax(logits, temperature))
    return chances.max(1), chances.argmax(1) == labels


def calibrated(logits: Floats, labels: Labels) -> dict[str, Any]:
    """The fitted temperature of held-out images, with the calibration error before and after.

    `temperature` is the fitted one, or 1 where that does not lower the error.

    Raises:
        InputError: see `fit_temperature`.
    """
    fitted = round(fit_temperature(logits, labels), 4)
    before, after = (expected_calibration_error(*best_class(logits, labels, value)) for value in (1.0, fitted))
    return {
        "temperature": fitted if after < before else 1.0,
        "fitted": fitted,
        "ece_before": before,
        "ece_after": after,
        "images": len(labels),
    }


def expected_calibration_error(confidence: Floats, correct: npt.NDArray[np.bool_], bins: int = 15) -> float:
    """Mean distance of confidence and accuracy over bins of equal width, weighted by the images in them; 0 to 1."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    difference = np.bincount(place, correct, bins) - np.bincount(place, confidence, bins)
    return float(np.abs(difference).sum() / max(count.sum(), 1))


def choose_threshold(confidence: Floats, correct: npt.NDArray[np.bool_], precision: float = 0.8) -> Threshold:
    """The lowest threshold at which the images that are named are named right in `precision` of the cases.

    Args:
        confidence: calibrated probability of the best class, [N]; images of unknown classes belong here too.
        correct: whether that class is right; never for an unknown class.
        precision: wanted share of right names.

    A threshold that names fewer than 10 images is not chosen: then the model never names one (1.0).
    """
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, right = confidence[order], np.cumsum(correct[order])
    named = np.arange(1, len(order) + 1)
    # A threshold lies between distinct values: it names all images of one confidence or none of them.
    ends = np.append(sorted_confidence[1:] < sorted_confidence[:-1], True)
    good = ends & (named >= 10) & (right >= precision * named)
    if not good.any():
        return Threshold(1.0, 0.0, 1.0)
    last = int(np.flatnonzero(good)[-1])
    below = sorted_confidence[last + 1] if last + 1 < len(order) else 0.0
    threshold = float((sorted_confidence[last] + below) / 2) if last + 1 < len(order) else 0.0
    return Threshold(threshold, float(named[last] / len(order)), float(right[last] / named[last]))


def naming(
    confidence: Floats,
    correct: npt.NDArray[np.bool_],
    known: npt.NDArray[np.bool_] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[dict[str, float | None]]:
    """What a model names at several thresholds.

    Args:
        confidence: probability of the best class of each image [N].
        correct: whether it is the image's class [N].
        known: whether the image shows one of the model's classes [N]; default: all do.
        thresholds: probabilities from which the best class is named.

    Returns:
        Per threshold `unsure_below`, `named` (share of the known images), `right` (share of right names among these;
        None where none is named) and `others_named` (share of the other images that get a name, always a wrong one;
        None where there are no others).
    """
    shown = np.ones(len(confidence), bool) if known is None else known
    rows: list[dict[str, float | None]] = []
    for threshold in thresholds:
        named = confidence >= threshold
        ours, others = named & shown, named & ~shown
        rows.append(
            {
                "unsure_below": threshold,
                "named": float(ours.sum() / max(1, shown.sum())),
                "right": float(correct[ours].mean()) if ours.any() else None,
                "others_named": float(others.sum() / (~shown).sum()) if (~shown).any() else None,
            }
        )
    return rows
