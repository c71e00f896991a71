"""Schedules against the values of the reference programs."""

from __future__ import annotations

import numpy as np
import pytest

from cast_sdk.training.engine import schedules


@pytest.fixture(scope="module")
def golden(golden_dir):
    return np.load(golden_dir / "schedules.npz")


def check(function, inputs, expected):
    np.testing.assert_allclose([function(value) for value in inputs.tolist()], expected, rtol=1e-9, atol=1e-20)


def test_moco(golden):
    lr = schedules.scaled_lr(1.5e-4, 256, 256)
    check(lambda e: schedules.cosine(e, lr, 100, 10), golden["moco/epoch"], golden["moco/lr_e100_w10_base1.5e-4"])
    check(lambda e: schedules.moco_momentum(e, 0.99, 100), golden["moco/epoch"], golden["moco/m_e100_0.99"])
    lr = schedules.scaled_lr(1.5e-4, 1024, 256)
    check(lambda e: schedules.cosine(e, lr, 400, 40), golden["moco400/epoch"], golden["moco400/lr"])
    check(lambda e: schedules.moco_momentum(e, 0.99, 400), golden["moco400/epoch"], golden["moco400/m"])


def test_linear_probe(golden):
    lr = schedules.scaled_lr(30, 1024, 256)
    check(lambda e: schedules.cosine(e, lr, 90), golden["lincls/epoch"], golden["lincls/lr_base30_b1024_e90"])


def test_deit_lags_one_epoch(golden):
    lr = schedules.scaled_lr(5e-4, 1024, 512)
    check(lambda e: schedules.deit_cosine(e, lr, 300), golden["deit/step_epoch_argument_plus1"], golden["deit/lr"])


def test_voc(golden):
    iterations, lr = golden["spml/iter"], 3e-3
    check(
        lambda it: schedules.warm(it, lr, schedules.poly(it, lr, 30000), 100),
        iterations,
        golden["spml/lr_poly_3e-3_30000_w100"],
    )


def test_segmenter(golden):
    check(
        lambda it: schedules.poly(it, 1e-3, 1000, 0.9, 1e-5),
        golden["segm/iter"],
        golden["segm/lr_1e-3_min1e-5_p0.9_max1000"],
    )
