"""Options of recipes that change speed and no result: compiling, cuDNN's choice of algorithms, TF32."""

from __future__ import annotations

import functools

import pytest
import torch

from cast_sdk.training.data.dataset import Images
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.loop import Loop
from cast_sdk.training.engine.options import Options
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.tasks.classification import Classification


def loop_of(recipe_path, data, out, *settings):
    recipe = load_recipe(str(recipe_path), ["schedule.epochs=1", "train.ema=null", *settings])
    images = {split: Images(open_source(data, split)) for split in ("train", "val")}
    return Loop(Classification.build(recipe, images, World()), Options(out=out, tensorboard=False))


@pytest.fixture
def backends():
    """torch's switches, as they were afterwards."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    yield lambda: (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before


def test_what_a_gpu_may_do_is_what_the_recipe_says(micro, folders, tmp_path, backends):
    loop_of(micro, folders, tmp_path)
    assert backends() == (True, True, False)  # the published programs' and torch's defaults
    loop_of(micro, folders, tmp_path, "train.cudnn_benchmark=false", "train.tf32='off'")
    assert backends() == (False, False, False)
    loop_of(micro, folders, tmp_path, "train.tf32=all")
    assert backends() == (True, True, True)


def test_a_compiled_run_ends_where_the_eager_one_ends(micro, folders, tmp_path, backends, monkeypatch):
    calls = []

    def compiled(module, **options):
        calls.append(options)
        original(module, backend="eager", fullgraph=True)  # Inductor takes minutes to give the same

    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", functools.partialmethod(compiled))
    weights = []
    for setting in ("false", "true"):
        torch._dynamo.reset()
        loop = loop_of(micro, folders, tmp_path / setting, f"train.compile={setting}")
        loop.run()
        weights.append(loop.task.model.state_dict())
    assert len(calls) == 1, "the option compiles the model once, and only where it is set"
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5, msg=name)
