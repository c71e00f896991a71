"""Two and three Gloo processes give what one gives: evaluations of any number of images, VOC's retrieval, resuming."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from cast_sdk.errors import RecipeError
from cast_sdk.models import create_model
from cast_sdk.training.data.dataset import Images, LabelledViews
from cast_sdk.training.data.dense.base import Pair
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.engine.distributed import (
    World,
    first_host,
    slurm_environment,
    tasks_per_node,
    with_tensors,
    without_tensors,
)
from cast_sdk.training.engine.loop import Loop, Position
from cast_sdk.training.engine.models import create
from cast_sdk.training.engine.options import Options
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.engine.recipe.settings import Dense
from cast_sdk.training.metrics.accuracy import accuracy
from cast_sdk.training.tasks.classification import Classification
from cast_sdk.training.tasks.dense import Inference, evaluate
from cast_sdk.training.tasks.voc_prediction import predict_split
from cast_sdk.training.tasks.voc_retrieval import build_memory

BATCH, STEPS = 2, 4
SETTINGS = [f"schedule.steps={STEPS}", "schedule.minutes=null", "train.batch=6", "train.ema=null"]


class First:
    """The first `length` items of a data set."""

    def __init__(self, views: LabelledViews, length: int) -> None:
        self.views, self.length, self.count = views, length, views.count

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Any) -> Any:
        return self.views[key]


def evaluated(world: World, recipe: Any, data: str) -> list[dict[str, float]]:
    """Accuracy over 1, 2, ... images: every remainder, fewer images than processes among them."""
    source = open_source(data, "train")
    views = LabelledViews(Images(source), recipe, train=False)
    model = create(recipe, source.classes).eval()
    return [accuracy(model, First(views, length), world, BATCH) for length in range(1, 3 * BATCH + 2)]


def trained(world: World, recipe: Any, data: str, out: Path, stop_after: int | None = None) -> dict[str, Any]:
    images = {split: Images(open_source(data, split)) for split in ("train", "val")}
    task = Classification.build(recipe, images, world, fresh=Classification.begins_anew(out, world))
    loop = Loop(task, Options(out=out, tensorboard=False, log_every=100))
    step = loop._step

    def counted(stream: Any) -> Any:
        done = step(stream)
        loop.stop = loop.at.total == stop_after and world.main  # one process is told to stop
        return done

    loop._step = counted
    loop.run()
    return {"at": loop.at.total, **task.model.state_dict()}


class Drawn:
    """A dense split of so many images, each made from its number."""

    class_names = ("one", "two", "three")
    palette = ((0, 0, 0), (255, 0, 0), (0, 255, 0))

    def __init__(self, length: int) -> None:
        self.pairs = [Pair(f"image{number}", Path(__file__), Path(__file__)) for number in range(length)]

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(index)
        return rng.integers(0, 256, (160, 128, 3), np.uint8), rng.integers(0, 3, (160, 128)).astype(np.uint8)


LENGTHS = range(1, 7)  # every remainder of two and three processes, and fewer images than processes
SIZES = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": 2, "clusters": (16, 8, 4, 2), "image_size": 64}


def retrieved(world: World, folder: Path) -> list[Any]:
    """The prototypes of 1, 2, ... images; files of one length serve the next."""
    torch.manual_seed(0)
    backbone = create_model("cast_seg_small", num_classes=0, stage="segmentation", **SIZES).eval()
    return [build_memory(backbone, Drawn(length), folder / str(length), world) for length in LENGTHS]


def dense(world: World, folder: Path) -> list[Any]:
    """The confusion matrices of VOC's evaluation and of the Segmenter's on 1, 2, ... images."""
    torch.manual_seed(0)
    model = create_model("segmenter_cast_small", num_classes=3, **SIZES).eval()
    inference = Inference(Dense(short_side=64, window=64), 64)
    found = []
    for length in LENGTHS:
        split: Any = Drawn(length)
        voc = predict_split(lambda image: image[..., 0] % 3, split, folder, world)
        for confusion in (voc, evaluate(model, split, inference, world)):
            found.append((confusion.images, confusion.matrix))
    return found


def everything(world: World, recipe_path: str, data: str, out: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    recipe = load_recipe(recipe_path, SETTINGS)
    return {
        "accuracy": evaluated(world, recipe, data),
        "dense": dense(world, out / "dense"),
        "memory": retrieved(world, out / "memory"),
        "sources": world.decided_by_main(lambda: open_source(data, "train")).names[3],
    }


def worker(rank: int, size: int, recipe_path: str, data: str, out: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{out}/meeting{size}", rank=rank, world_size=size)
    from cast_sdk.training.engine.distributed import start

    world = start("cpu")
    own = Path(out) / f"{size}-{rank}"  # no folder is shared
    found = everything(world, recipe_path, data, own)

    def refuse() -> None:
        raise RecipeError("This is refused.")

    with pytest.raises(RecipeError, match="refused"):
        world.decided_by_main(refuse)
    if size == 2:
        recipe = load_recipe(recipe_path, [*SETTINGS, "model.head_start=probe"])  # fitted by all or by none
        whole = trained(world, recipe, data, own / "whole")
        half = trained(world, recipe, data, own / "run", stop_after=2)
        assert half["at"] == 2 and (own / "run" / "checkpoint.pth").is_file() == world.main
        rest = trained(world, recipe, data, own / "run")
        found["resumed"] = all(
            torch.equal(rest[key], whole[key]) if isinstance(whole[key], torch.Tensor) else rest[key] == whole[key]
            for key in whole
        )
    torch.save(found, own / "found.pt")
    world.finish()


@pytest.mark.parametrize("size", [2, 3])
def test_many_processes_give_what_one_gives(size, folders, micro, tmp_path):
    mp.spawn(worker, (size, str(micro), str(folders), str(tmp_path)), nprocs=size)
    alone = everything(World(), str(micro), str(folders), tmp_path / "alone")
    for rank in range(size):
        found = torch.load(tmp_path / f"{size}-{rank}" / "found.pt", weights_only=False)
        for ours, theirs in zip(found["accuracy"], alone["accuracy"], strict=True):
            assert (ours["top1"], ours["top5"]) == (theirs["top1"], theirs["top5"])
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
        assert [images for images, _ in found["dense"]] == [length for length in LENGTHS for _ in range(2)]
        for (_, ours), (_, theirs) in zip(found["dense"], alone["dense"], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(found["memory"], alone["memory"], strict=True):
            for one, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
        made = {path.name for path in (tmp_path / f"{size}-{rank}" / "memory").rglob("*.npz")}
        assert made == {f"image{number}.npz" for number in range(rank, max(LENGTHS), size)}  # its share and no more
        assert found["sources"] == alone["sources"]
        assert found.get("resumed", True), "a run that only the first process had a checkpoint of ended differently"


class Recorded(World):
    """One of two processes, whose decisions of the first one are counted."""

    def decided_by_main(self, decide: Any) -> Any:
        DECISIONS.append("joined")
        if not self.main:
            return None
        try:
            return decide()
        except RecipeError:
            DECISIONS.append("refused")
            raise

    def barrier(self) -> None:
        DECISIONS.append("waited")


DECISIONS: list[str] = []


def begun(rank: int, recipe: Any, out: Path) -> list[str]:
    """What a process joins at the start of a run that ends at once."""
    DECISIONS.clear()
    loop: Any = Loop.__new__(Loop)
    loop.world, loop.recipe, loop.options = Recorded(rank, 2), recipe, Options(out=out, tensorboard=False)
    loop.task = SimpleNamespace(rolling="checkpoint.pth", files=lambda *_: ["best.pth"])
    loop.fraction, loop.at, loop.best, loop.stop = lambda: 1.0, Position(), {}, False
    with contextlib.suppress(RecipeError):
        loop.run()
    return list(DECISIONS)


def test_processes_begin_in_step_whatever_the_folder_holds(micro, tmp_path):
    """The first process has made its log before a late one comes, and what it refuses is refused by all."""
    recipe = load_recipe(str(micro), SETTINGS)
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "log.jsonl").write_text('{"kind": "start", "resumed": false}\n')
    first = begun(0, recipe, tmp_path / "new")
    assert first and begun(1, recipe, tmp_path / "new") == begun(1, recipe, tmp_path / "late") == first
    (tmp_path / "late" / "log.jsonl").write_text("of somebody else")
    assert begun(0, recipe, tmp_path / "late") == [*first, "refused"]


def test_tensors_travel_apart():
    value = {"a": [torch.ones(2), {"b": (torch.zeros(1), "text")}], 3: None}
    skeleton, tensors = without_tensors(value)
    assert len(tensors) == 2 and "tensor" not in str(skeleton)
    back = with_tensors(skeleton, tensors)
    assert torch.equal(back["a"][0], torch.ones(2)) and back["a"][1]["b"][1] == "text" and back[3] is None


STEP = {
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08,11]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
    "SLURM_JOB_ID": "4123456",
}


def test_srun_is_as_torchrun():
    assert slurm_environment(STEP) == {
        "WORLD_SIZE": "6",
        "RANK": "5",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "23456",
    }
    assert slurm_environment(STEP | {"MASTER_ADDR": "10.0.0.1"})["MASTER_ADDR"] == "10.0.0.1"
    steps = {slurm_environment(STEP | {"SLURM_STEP_ID": str(step)})["MASTER_PORT"] for step in range(8)}
    assert len(steps) == 8 and "23456" in steps, "steps of one job meet at one port"
    assert slurm_environment(STEP | {"WORLD_SIZE": "2"}) == {}  # torchrun inside of a step
    assert slurm_environment(STEP | {"SLURM_STEP_NUM_TASKS": "1"}) == {}
    batch_script = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_NODELIST": "gpu[07-08]"}
    assert slurm_environment(batch_script) == {}  # runs once, not as a step of 8
    assert slurm_environment({}) == {}


def test_lists_of_slurm():
    assert [first_host(text) for text in ("n1", "n1,n2", "n[3-5]", "a-b[003,7]-ib,c", "x[09]")] == [
        "n1",
        "n1",
        "n3",
        "a-b003-ib",
        "x09",
    ]
    assert tasks_per_node("2(x3),1") == [2, 2, 2, 1] and tasks_per_node("4") == [4]
