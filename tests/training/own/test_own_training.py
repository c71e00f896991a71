"""What training for own data adds to the programs: balance, rates by layer, a fitted head, epochs that obey."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from cast_sdk import create_model
from cast_sdk.errors import RecipeError
from cast_sdk.training.data.balance import BalancedSampler, draw_weights
from cast_sdk.training.engine.optim import build_optimizer
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.engine.recipe.settings import Optimizer
from cast_sdk.training.own.classes.judging import disagreements, judge
from cast_sdk.training.tasks.probe_start import fit_linear

TINY = {"embed_dim": 32, "depths": (1, 1, 1, 1), "num_heads": 2, "clusters": (8, 4, 3, 2), "image_size": 32}


def test_balanced_epochs_draw_all_classes_alike():
    labels = np.repeat([0, 1, 2], [80, 30, 10])
    sampler = BalancedSampler(draw_weights(labels, 1.0), 8, seed=5)
    counts = np.zeros(120, np.int64)
    for epoch in range(30):
        sampler.set_position(epoch)
        order = sampler.order()
        once = np.bincount(order, minlength=120)
        # Each class has its 40 places in every epoch, and no image more than its share allows.
        assert np.abs(np.bincount(labels, once) - 40).max() <= 1
        assert once[labels == 2].tolist() == [4] * 10
        counts += once
        assert order == sampler.order()
    assert counts.min() >= 5  # of 15 draws that an image of the large class has on average
    sampler.set_position(0)
    first = [key[0] for batch in sampler for key in batch]
    assert len(first) == 120 and len({*first}) < 120


def test_power_zero_draws_every_image_once():
    weights = draw_weights(np.repeat([0, 1], [5, 15]), 0.0)
    assert sorted(BalancedSampler(weights, 4, seed=1).order()) == list(range(20))


def test_rates_fall_towards_the_image():
    model = create_model("cast_tiny", num_classes=3, **TINY)
    optimizer = build_optimizer(model, Optimizer(layer_decay=0.5), 1.0)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert set(rate) == trained
    of = {name: rate[id(p)] for name, p in model.named_parameters(remove_duplicate=False) if id(p) in rate}
    assert of["head.weight"] == 1.0 and of["norm.weight"] == 0.5
    assert of["blocks1.0.attn.qkv.weight"] == 0.5**9 and of["patch_embed.proj.0.weight"] == 0.5**10
    spared = [g for g in optimizer.param_groups if any(p is model.head.bias for p in g["params"])]
    assert spared[0]["weight_decay"] == 0
    with pytest.raises(RecipeError, match="the model has no stages"):
        build_optimizer(torch.nn.Linear(2, 2), Optimizer(layer_decay=0.5), 1.0)


def test_a_fitted_head_separates_and_is_penalised():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 16, generator=generator) + 5 * torch.nn.functional.one_hot(labels, 16) + 100
    weight, bias = fit_linear(features, labels, 3)
    assert ((features @ weight.T + bias).argmax(1) == labels).all()
    strong, _ = fit_linear(features, labels, 3, penalty=2000.0)
    assert strong.norm() < weight.norm() / 2
    # Weighing one class up moves the border to the others.
    shifted, moved = fit_linear(
        torch.randn(60, 16, generator=generator), labels, 3, torch.where(labels == 0, 50.0, 1.0)
    )
    assert (shifted @ torch.zeros(16) + moved).argmax() == 0


def test_epochs_obey(caplog):
    with caplog.at_level(logging.WARNING):
        recipe = load_recipe("tiny_supervised", ["schedule.epochs=3"])
    assert recipe.schedule.ends_by == "epochs" and recipe.schedule.epochs == 3
    assert "schedule.epochs ends this run, not the recipe's schedule.minutes=95" in caplog.text
    with pytest.raises(RecipeError, match=r"schedule\.epochs and schedule\.minutes were both given"):
        load_recipe("tiny_supervised", ["schedule.epochs=3", "schedule.minutes=5"])
    assert load_recipe("tiny_supervised", ["schedule.minutes=5"]).schedule.ends_by == "minutes"


def test_judging():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [90, 10])
    logits = np.stack([np.ones(100), np.zeros(100)], 1) + rng.normal(0, 0.1, (100, 2))
    judged = judge(logits, labels)
    assert judged.accuracy == 90 and judged.balanced_accuracy == 50
    assert judged.recalls.tolist() == [100, 0] and judged.confusion.tolist() == [[90, 0], [10, 0]]
    assert set(judged.worst(24).tolist()) == set(range(90, 100))
    assert judged.temperature != 1 and judged.calibration is not None
    few = judge(logits[:5], labels[:5])
    assert few.temperature == 1 and few.calibration is None and few.unsure_below == 0
    hopeless = judge(rng.normal(0, 1, (100, 2)), rng.integers(0, 2, 100))
    assert hopeless.unsure_below < 1  # a model that never names anything would help nobody
    swapped = logits.copy()
    swapped[3] = logits[3, ::-1]
    assert disagreements(logits, swapped) == 1 and disagreements(logits, logits) == 0
