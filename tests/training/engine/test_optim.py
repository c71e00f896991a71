"""Parameter groups and optimizers."""

from __future__ import annotations

import copy

import pytest
import torch

from cast_sdk.errors import RecipeError
from cast_sdk.models import create_model
from cast_sdk.training.engine.ema import Ema
from cast_sdk.training.engine.optim import build_optimizer, decay_groups, scale_lr, trainable
from cast_sdk.training.engine.recipe.settings import Optimizer

SMALL = {"embed_dim": 32, "depths": (1, 1, 1, 1), "num_heads": 2, "clusters": (8, 4, 3, 2), "image_size": 32}


@pytest.fixture
def model():
    return create_model("cast_deit_small", num_classes=5, **SMALL)


def test_timms_rule_spares_vectors_biases_positions_and_class_token(model):
    named = dict(trainable(model))
    plain, decayed = decay_groups(named.items(), 0.05, "timm")
    names = {id(parameter): name for name, parameter in named.items()}
    spared = {names[id(parameter)] for parameter in plain["params"]}
    assert {"cls_token", "pos_embed", "head.bias", "pool1.pool_block.centroid_fc.bias", "norm.weight"} <= spared
    assert {names[id(parameter)] for parameter in decayed["params"]} == {
        name for name in named if name.endswith("weight") and named[name].ndim > 1
    }
    assert (plain["weight_decay"], decayed["weight_decay"]) == (0.0, 0.05)
    assert not any(name.startswith("pool4") for name in named)  # frozen
    assert len(plain["params"]) + len(decayed["params"]) == len(named)


def test_mocos_rule_is_one_group_with_decay_on_everything(model):
    (group,) = decay_groups(trainable(model), 0.1, "all")
    assert group["weight_decay"] == 0.1 and len(group["params"]) == len(list(trainable(model)))


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_every_optimizer_learns_scales_and_resumes(name, model):
    config = Optimizer(name=name, lr=0.01)
    optimizer = build_optimizer(model, config, 0.01)
    covered = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert covered == {id(p) for _, p in trainable(model)}
    scale_lr(optimizer, 0.5)
    assert optimizer.param_groups[-1]["lr"] == 0.005
    gradients = [torch.randn_like(p) for _, p in trainable(model)]

    def step(target, source):
        for (_, parameter), gradient in zip(trainable(source), gradients, strict=True):
            parameter.grad = gradient.clone()
        target.step()

    step(optimizer, model)
    twin = create_model("cast_deit_small", num_classes=5, **SMALL)
    twin.load_state_dict(model.state_dict())
    other = build_optimizer(twin, config, 0.01)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(optimizer, model)
    step(other, twin)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))


def test_unknown_optimizer(model):
    with pytest.raises(RecipeError, match="no optimizer 'adam'"):
        build_optimizer(model, Optimizer(name="adam"), 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("aliases", [False, True])
def test_ema_averages_blocks_once_or_once_per_name(model, aliases):
    ema = Ema(model, 0.9, aliases)
    before = {name: value.clone() for name, value in ema.model.state_dict().items()}
    with torch.no_grad():
        for _, parameter in trainable(model):
            parameter.add_(1.0)
    model.patch_embed.proj[1].num_batches_tracked += 7
    ema.update()
    after = ema.model.state_dict()
    torch.testing.assert_close(after["head.weight"], before["head.weight"] + 0.1)
    kept = 0.9**2 if aliases else 0.9
    torch.testing.assert_close(after["blocks1.0.attn.qkv.weight"], before["blocks1.0.attn.qkv.weight"] + (1 - kept))
    assert after["patch_embed.proj.1.num_batches_tracked"] == 7
