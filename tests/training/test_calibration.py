"""Temperature, calibration error and the threshold, on cases with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from cast_sdk.errors import InputError
from cast_sdk.training.metrics.calibration import (
    choose_threshold,
    expected_calibration_error,
    fit_temperature,
    log_softmax,
    naming,
)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    drawn = np.exp(log_softmax(logits)).cumsum(1)
    labels = (rng.random((len(logits), 1)) > drawn).sum(1).clip(max=4)
    scaled = logits * temperature
    assert fit_temperature(scaled, labels) == pytest.approx(temperature, rel=0.05)


def test_calibration_wants_fitting_shapes():
    with pytest.raises(InputError, match=r"logits \[N, classes\]"):
        fit_temperature(np.zeros((3, 2)), np.zeros(4, int))
    with pytest.raises(InputError):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, int))


def test_calibration_error():
    sure = np.array([0.9] * 10)
    assert expected_calibration_error(sure, np.arange(10) < 9) == pytest.approx(0)
    assert expected_calibration_error(sure, np.arange(10) < 5) == pytest.approx(0.4)
    mixed = np.array([1.0] * 5 + [0.5] * 5)
    assert expected_calibration_error(mixed, np.array([True] * 5 + [False] * 5)) == pytest.approx(0.25)


def test_the_threshold_names_as_much_as_it_may():
    confidence = np.linspace(0.99, 0.01, 100)
    correct = np.arange(100) < 40  # the first 40 are right, so 50 may be named at 80%
    chosen = choose_threshold(confidence, correct, 0.8)
    assert chosen.named == pytest.approx(0.5) and chosen.precision == pytest.approx(0.8)
    named = confidence >= chosen.unsure_below
    assert named.sum() == 50 and correct[named].mean() == pytest.approx(0.8)


def test_equal_confidences_are_named_together():
    confidence = np.array([0.9] * 20 + [0.5] * 20)
    correct = np.array([True] * 20 + [True] * 10 + [False] * 10)
    chosen = choose_threshold(confidence, correct, 0.8)
    assert chosen.unsure_below == pytest.approx(0.7) and chosen.named == 0.5


def test_a_model_that_is_never_right_names_nothing_and_one_that_always_is_names_all():
    assert choose_threshold(np.full(50, 0.9), np.zeros(50, bool)).unsure_below == 1.0
    assert choose_threshold(np.linspace(0.1, 0.9, 50), np.ones(50, bool)).unsure_below == 0.0


def test_what_is_named_at_a_threshold():
    confidence = np.array([0.9, 0.7, 0.4, 0.95, 0.3])
    correct = np.array([True, False, True, False, False])
    known = np.array([True, True, True, False, False])
    (row,) = naming(confidence, correct, known, [0.6])
    assert row == {"unsure_below": 0.6, "named": pytest.approx(2 / 3), "right": 0.5, "others_named": 0.5}
    (none,) = naming(confidence, correct, thresholds=[0.99])
    assert none == {"unsure_below": 0.99, "named": 0.0, "right": None, "others_named": None}
