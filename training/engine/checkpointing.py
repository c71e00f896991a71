"""Checkpoints that are written whole or not at all, and a resume that continues bit for bit.

A checkpoint is the official layout of its program plus one entry, `resume`: the recipe, the position in the schedule
and everything the official entries leave out. Random states are not stored: data items depend on (seed, epoch,
position) and each step draws from a generator seeded by (seed, step, rank), see `seed_step`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cast_sdk.descriptions import build
from cast_sdk.errors import ArtifactError, CheckpointError, ExportError, RecipeError
from cast_sdk.models.checkpoints.reading import read_file
from cast_sdk.system.files import atomic_write, check_writable
from cast_sdk.training.engine.recipe.building import recipe_from_dict

RESUME_KEY = "resume"
# Parts of a recipe that may change between two starts of one run: they end or describe it, they do not undo it.
CHANGEABLE = ("name", "notes", "schedule.minutes", "phases")


def save(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write atomically: a crash or a full disk leaves the previous file in place.

    Raises:
        CheckpointError: when the disk is full or the folder cannot be written.
    """
    try:
        with atomic_write(path) as temporary:
            torch.save(dict(checkpoint), temporary)
    except (ExportError, OSError, RuntimeError) as error:  # torch's writer reports a full disk as RuntimeError
        reason = error.found if isinstance(error, ExportError) else str(error).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be written.",
            found=reason,
            remedy="free space and resume: the previous checkpoint is untouched",
        ) from error


def load(path: Path, recipe: Mapping[str, Any], world_size: int | None) -> dict[str, Any]:
    """A checkpoint that continues this recipe on as many processes (None: on any number).

    Raises:
        CheckpointError: for a missing, damaged or foreign file.
        RecipeError: when recipe or number of processes differ, naming how.
    """
    raw = read_file(path)
    if RESUME_KEY not in raw:
        raise CheckpointError(
            f"{path} holds weights only, no run to continue.",
            remedy=f"start from these weights instead: --set model.init={path}",
        )
    stored = resume_entry(raw, path)
    changed = [
        f"{key}: {old!r} in the checkpoint, {new!r} now"
        for key, old, new in _differences(_complete(stored.recipe), dict(recipe))
        if key not in CHANGEABLE
    ]
    if changed:
        raise RecipeError(
            f"{path} was made with another recipe.",
            found="; ".join(changed[:4]),
            remedy="use the same recipe and --set values, or another --out for a new run",
        )
    if world_size is not None and stored.world_size != world_size:
        raise RecipeError(
            f"The number of processes changed: {stored.world_size} in the checkpoint, {world_size} now.",
            remedy=f"torchrun --nproc-per-node {stored.world_size}, or --allow-world-size to give up exactness",
        )
    return raw


def check_new(out: Path, rolling: str, names: Iterable[str]) -> None:
    """Before a new run: its checkpoints can be written, and take the place of no file.

    Args:
        out: folder of the run.
        rolling: the file that it will be resumed from.
        names: of the others that it will write.

    Raises:
        RecipeError: a file of another run, or something else, has one of the names.
        ExportError: the folder cannot be written.
    """
    taken = [name for name in dict.fromkeys((rolling, *names)) if os.path.lexists(out / name)]
    if taken:
        raise RecipeError(
            f"{out} holds {', '.join(taken[:4])} of something else, which this run would replace.",
            found=f"no {rolling} to continue from",
            remedy="choose another --out, or move it away",
        )
    check_writable(out / rolling)


@dataclass(frozen=True)
class Resume:
    """The entry `resume`: where a run was."""

    recipe: dict[str, Any]
    world_size: int
    epoch: int
    step: int  # finished in this epoch
    total: int  # finished in all epochs
    seconds: float
    best: dict[str, Any]


_RANGES = {
    "world_size": (1, 2**20),
    "epoch": (0, 2**31),
    "step": (0, 2**31),
    "total": (0, 2**62),
    "seconds": (0, 1e12),
}
_REMEDY = "resume from another checkpoint of the run, or start anew with another --out"


def resume_entry(raw: Mapping[str, Any], path: Path) -> Resume:
    """The entry `resume` of a checkpoint, checked.

    Raises:
        CheckpointError: it is missing, or a field is missing, of another type or out of range.
    """
    try:
        entry = build(Resume, raw.get(RESUME_KEY), f"the entry {RESUME_KEY!r} of {path}", _RANGES, remedy=_REMEDY)
    except ArtifactError as error:
        raise CheckpointError(error.problem, remedy=_REMEDY) from error
    for name, value in entry.best.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise CheckpointError(f"The best result {name!r} in {path} is not a number.", remedy=_REMEDY)
    return entry


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Report parts of a checkpoint that do not fit the run as a CheckpointError."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        what = f"no entry {error}" if isinstance(error, KeyError) else str(error).strip().splitlines()[0][:300]
        raise CheckpointError(f"{path} does not fit this run or is damaged.", found=what, remedy=_REMEDY) from error


def _complete(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored recipe with today's defaults for settings that did not exist when it was written."""
    try:
        return recipe_from_dict(stored).to_dict()
    except RecipeError:  # a setting that no longer exists: shown as a difference
        return dict(stored)


def _differences(old: Any, new: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    old, new = _lists(old), _lists(new)
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [
            found
            for key in keys
            for found in _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if old == new else [(where, old, new)]


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def seed_step(seed: int, step: int, rank: int) -> None:
    """Random state of one step of one process: dropout, drop path, mixup. Makes resuming independent of history."""
    number = int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002 (timm's mixup draws from it)
    random.seed(number)
