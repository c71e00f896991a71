"""The loss, its gradients and the schedules of H-CAST against the reference's numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_tools import assert_close
from hcast_tools import HCAST, batch, load, make
from test_steps import canonical_parameters, check_gradients

from cast_sdk.training.engine import schedules
from cast_sdk.training.tasks.taxonomy import cross_entropies, level_targets, taxonomy_loss, tree_path_kl

GRADS = sorted(path.stem for path in HCAST.glob("case_grad_*.npz"))


def numbered(case, prefix):
    return [torch.from_numpy(case[f"{prefix}{level}"]) for level in range(1, 4) if f"{prefix}{level}" in case]


def tables(case):
    """Labels of the case, and a table with a row for each of its images: their classes need not form a tree."""
    hard = torch.stack(numbered(case, "hard"), 1)
    return hard, hard


@pytest.mark.parametrize("name", GRADS)
def test_targets(name):
    """Each image stands for a finest class of its own, so any labels go along."""
    case, meta = load(name)
    hard, table = tables(case)
    own = torch.eye(len(hard))
    rows = float(case["lam"]) * own + (1 - float(case["lam"])) * own.flip(0)
    found = level_targets(rows, table, meta["nb_classes"], float(case["smoothing"]))
    for ours, theirs in zip(found, numbered(case, "target"), strict=True):
        assert_close(ours, theirs, 1e-6, "target")
        assert torch.allclose(ours.sum(1), torch.ones(len(ours)))


@pytest.mark.parametrize("name", GRADS)
def test_losses(name):
    case, _ = load(name)
    logits, targets = numbered(case, "logits"), numbered(case, "target")
    assert_close(cross_entropies(logits, targets), case["loss_ce"], 1e-5, "cross entropies")
    assert_close(tree_path_kl(logits, targets), case["loss_kl"], 1e-5, "tree-path KL")
    assert_close(taxonomy_loss(logits, targets, float(case["gk_weight"])), case["loss"], 1e-5, "total")
    assert_close(taxonomy_loss(logits, targets, 0.0), case["loss_ce"].sum(), 1e-5, "without the KL")


def mixed(images, case, meta):
    if meta["mix"] == "mixup":
        return float(case["lam"]) * images + (1 - float(case["lam"])) * images.flip(0)
    if meta["mix"] == "cutmix":
        top, bottom, left, right = case["cutmix_box"]
        pasted = images.clone()
        pasted[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
        assert float(case["lam"]) == 1 - (bottom - top) * (right - left) / images[0, 0].numel()
        return pasted
    return images


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if "tiny" in n else (pytest.mark.full,), id=n[5:]) for n in GRADS]
)
def test_gradients(name):
    case, meta = load(name)
    model, crc = make(meta)
    assert crc == int(case["state_crc"])
    if meta["mode"].startswith("train"):
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    images, labels = batch(case, meta)
    logits = model(mixed(images, case, meta), labels, "batch").taxonomy
    for ours, theirs in zip(logits, numbered(case, "logits"), strict=True):
        assert_close(ours.detach(), theirs, 1e-4, "logits")
    loss = taxonomy_loss(logits, numbered(case, "target"), float(case["gk_weight"]))
    loss.backward()
    assert_close(loss.detach(), case["loss"], 1e-5, "total")
    check_gradients(canonical_parameters(model), case, 1e-3)
    state = model.state_dict()
    after = [key for key in case if key.startswith("after/")]
    assert bool(after) == meta["mode"].startswith("train")
    for key in after:
        assert_close(state[key.removeprefix("after/")], case[key], 1e-5, key)


def test_the_optimum_gives_every_class_of_the_path_an_equal_share():
    targets = [F.one_hot(torch.tensor([1]), 3).float(), F.one_hot(torch.tensor([0]), 2).float()]
    even = [torch.tensor([[-50.0, 0, -50]]), torch.tensor([[0.0, -50]])]
    uneven = [torch.tensor([[-50.0, 3, -50]]), torch.tensor([[0.0, -50]])]
    assert tree_path_kl(even, targets).abs() < 1e-6
    assert tree_path_kl(uneven, targets) > 0.3
    assert cross_entropies(uneven, targets).max() < 1e-6  # which the separate heads do not see


PEAKS = {  # peak, warm-up rate
    "cub200": (2.5e-4, 1e-6),
    "aircraft": (5e-4, 1e-4),
    "breeds_four_workers_default": (1e-3, 1e-6),
    "breeds_four_workers_lr1e-3": (2e-3, 1e-4),
    "inat21_four_workers": (1e-3, 1e-6),
    "inat21_log_one_worker_batch512": (5e-4, 1e-6),
}


@pytest.mark.parametrize("name", PEAKS)
@pytest.mark.parametrize(("revision", "period"), [("t300", "hcast_april"), ("t100", "hcast_june")])
def test_schedules_of_both_revisions(name, revision, period):
    with np.load(HCAST / "hcast_schedules.npz") as file:
        expected = file[f"{name}/{revision}"]
    peak, warmup = PEAKS[name]
    found = [
        schedules.deit_cosine(epoch, peak, schedules.period(period, 100), 5, warmup, 1e-5)
        for epoch in range(len(expected))
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
