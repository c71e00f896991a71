"""Two AdamW steps of the whole MoCo wrapper against the reference's parameter changes."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import torch
from golden_tools import GOLDEN, assert_close, draw_weights, fixture_slice
from test_cases import BUILDERS
from test_steps import canonical_parameters

from cast_sdk.models import MoCo, model_spec
from cast_sdk.training.engine.optim import build_optimizer
from cast_sdk.training.engine.recipe.settings import Optimizer


@pytest.mark.parametrize("encoder", ["cast", "cast_seg"])
def test_steps_move_every_parameter_as_the_reference_does(encoder):
    with np.load(GOLDEN / f"moco_step_{encoder}.npz") as file:
        fixture = {key: file[key] for key in file.files}
    meta = json.loads(str(fixture["meta"]))
    builder, options = BUILDERS["tiny_cast" if encoder == "cast" else "tiny_cast_seg_pretrain"]
    model = MoCo(model_spec(builder, **options, head="projector", head_dims=(meta["mlp_dim"], meta["dim"])))
    draw_weights(model, meta["salt"])
    parameters = canonical_parameters(model)
    before = {key: parameter.detach().clone() for key, parameter in parameters.items()}
    for key, parameter in parameters.items():
        if parameter.requires_grad:
            seed = zlib.crc32(f"{meta['salt']}grad:{key}".encode()) & 0x7FFFFFFF
            drawn = 0.01 * np.random.RandomState(seed).standard_normal(tuple(parameter.shape))
            parameter.grad = torch.from_numpy(drawn.astype(np.float32))

    optimizer = build_optimizer(model, Optimizer(name="adamw", weight_decay=0.1, decay_rule="all"), 1e-3)
    for _ in range(meta["optimiser_steps"]):
        optimizer.step()

    names = [str(key) for key in fixture["param_names"]]
    assert set(names) == set(parameters)
    for i, key in enumerate(names):
        delta = (parameters[key].detach() - before[key]).numpy()
        norm = float(fixture["adamw_delta_norm"][i])
        assert abs(np.linalg.norm(delta.astype(np.float64)) - norm) <= 1e-4 * norm, key
        if norm == 0:
            assert not delta.any(), f"{key} must not move"
        else:
            assert_close(fixture_slice(delta), fixture["adamw_delta_slice"][i], 1e-3, key)
