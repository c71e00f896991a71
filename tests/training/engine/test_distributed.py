"""Two Gloo processes with the same global batch against one process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from cast_sdk.errors import RecipeError
from cast_sdk.training.data.dataset import Images, LabelledViews, loader
from cast_sdk.training.data.sampler import EpochSampler
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.models import create
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.tasks.classification import Classification

BATCH = 8


def one_step(world: World, recipe_path: str, data: str) -> dict[str, torch.Tensor]:
    """Loss, gradients and buffers of the first global batch, without dropout, statistics over all processes."""
    torch.set_num_threads(1)
    recipe = load_recipe(recipe_path, ["train.sync_bn=true", "train.ema=null", "model.dropout=0"])
    source = open_source(data, "train")
    views = LabelledViews(Images(source), recipe, train=True)
    model = create(recipe, source.classes)
    task = Classification(recipe, model, views, views, world)
    sampler = EpochSampler(len(views), world.per_process(BATCH), rank=world.rank, world=world.size, seed=1)
    task.wrapped.train()
    loss = task.loss(next(iter(loader(views, sampler))), 0.0)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    buffers = {f"buffer {name}": value for name, value in model.named_buffers()}
    return {"loss": world.mean(loss.detach().clone()), **gradients, **buffers}


def worker(rank: int, recipe: str, data: str, out: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2)
    from cast_sdk.training.engine.distributed import start

    world = start("cpu")
    torch.save(one_step(world, recipe, data), Path(out) / f"{rank}.pt")
    assert not TASKS.exists() or any("gloo" in name for name in thread_names())
    world.finish()
    assert not TASKS.exists() or not any("gloo" in name for name in thread_names()), thread_names()


TASKS = Path("/proc/self/task")  # Linux's list of the threads of this process


def thread_names() -> list[str]:
    return [(thread / "comm").read_text().strip() for thread in TASKS.iterdir()]


def test_two_processes_give_the_loss_and_gradients_of_one(folders, micro, tmp_path):
    """And leave no thread of Gloo behind: one that is still at work when the interpreter ends aborts the process."""
    mp.spawn(worker, (str(micro), str(folders), str(tmp_path)), nprocs=2)
    alone = one_step(World(), str(micro), str(folders))
    for rank in range(2):
        together = torch.load(tmp_path / f"{rank}.pt")
        assert together.keys() == alone.keys()
        for name, value in alone.items():
            scale = float(value.abs().max().clamp(min=1e-3))
            torch.testing.assert_close(together[name], value, rtol=0, atol=1e-5 * max(scale, 1.0), msg=name)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(RecipeError, match=r"(?s)batch 10 over 4 processes.*train\.batch=8"):
        World(size=4).per_process(10)
    assert World(size=4).per_process(32, accumulation=2) == 4
