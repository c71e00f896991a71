"""Saving and resuming when things go wrong."""

from __future__ import annotations

import errno

import pytest
import torch

from cast_sdk.errors import CheckpointError, RecipeError
from cast_sdk.training.engine import checkpointing
from cast_sdk.training.engine.recipe.files import load_recipe


@pytest.fixture
def recipe(micro):
    return load_recipe(str(micro)).to_dict()


@pytest.fixture
def saved(tmp_path, recipe):
    path = tmp_path / "checkpoint.pth"
    resume = {"recipe": recipe, "world_size": 1, "epoch": 1, "step": 2, "total": 8}
    resume |= {"seconds": 4.5, "best": {"top1": 20.0}}
    checkpointing.save({"model": {"w": torch.ones(3)}, checkpointing.RESUME_KEY: resume}, path)
    return path


def test_a_full_disk_keeps_the_previous_checkpoint(saved, recipe, monkeypatch):
    before = saved.read_bytes()

    def full(checkpoint, path):
        path.write_bytes(b"half a check")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"(?s)No space left.*previous checkpoint is untouched"):
        checkpointing.save({"model": {}}, saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint.pth"]  # no temporary file stays


def test_resuming_tells_what_differs(saved, recipe):
    assert checkpointing.load(saved, recipe, 1)["model"]["w"].tolist() == [1, 1, 1]
    longer = {**recipe, "schedule": {**recipe["schedule"], "minutes": 5.0}}
    checkpointing.load(saved, longer, 1)  # when it ends may change
    other = {**recipe, "train": {**recipe["train"], "batch": 16}}
    with pytest.raises(RecipeError, match=r"train\.batch: 8 in the checkpoint, 16 now"):
        checkpointing.load(saved, other, 1)
    with pytest.raises(RecipeError, match=r"(?s)1 in the checkpoint, 4 now.*--allow-world-size"):
        checkpointing.load(saved, recipe, 4)
    checkpointing.load(saved, recipe, None)


def test_settings_newer_than_the_checkpoint_count_as_their_default(saved, recipe):
    raw = torch.load(saved, weights_only=True)
    del raw["resume"]["recipe"]["probe"], raw["resume"]["recipe"]["train"]["drop_last"]
    checkpointing.save(raw, saved)
    checkpointing.load(saved, recipe, 1)


def test_damaged_and_foreign_files_are_refused(saved, recipe):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="complete"):
        checkpointing.load(saved, recipe, 1)
    torch.save({"model": {"w": torch.ones(1)}}, saved)
    with pytest.raises(CheckpointError, match=r"(?s)weights only.*model\.init"):
        checkpointing.load(saved, recipe, 1)


def test_a_steps_random_state_depends_on_seed_step_and_rank_alone():
    draws = {}
    for key in [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0)]:
        checkpointing.seed_step(*key)
        draws[key] = float(torch.rand(()))
    assert len(set(draws.values())) == 4
    checkpointing.seed_step(0, 1, 0)
    assert float(torch.rand(())) == draws[0, 1, 0]
