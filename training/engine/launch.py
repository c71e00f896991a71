"""What every program does around its training: messages for people, images from disk, start and end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cast_sdk.errors import InputError
from cast_sdk.runtime.commands.common import clean_exit
from cast_sdk.training.data.dataset import Images
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.engine.distributed import World, start
from cast_sdk.training.engine.loop import run_task
from cast_sdk.training.engine.options import Run
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.engine.task import Task


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Log to stderr, and end a program as every command ends: see `clean_exit`."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    with clean_exit():
        yield


def run_program(kind: type[Task], run: Run, **own: Any) -> None:
    """What the command of a training program does.

    Args:
        kind: the program's task.
        run: from the command line.
        own: options that only this program has, for `kind.open`.
    """
    with errors_for_people():
        recipe = load_recipe(run.recipe, run.overrides, kind.program)
        kind.check(recipe)
        world = start(run.device)
        run_task(kind.open(recipe, run, world, **own), run.options)
        world.finish()


def open_images(run: Run, splits: Sequence[str], world: World) -> dict[str, Images]:
    """The images of a run's splits.

    Raises:
        InputError: when a split is missing, or has other class folders than another one.
    """
    images = {split: load_images(run.data, split, run.on_bad_image, run.cache, world) for split in splits}
    check_same_classes(images)
    return images


def load_images(root: Path, split: str, on_bad: Any, cache: bool, world: World) -> Images:
    """The images of a split, decoded into memory with `cache`. The first process lists them for all."""
    images = Images(world.decided_by_main(lambda: open_source(root, split)), on_bad)
    if cache:
        if world.main:
            print(f"decoding {len(images)} {split} images", flush=True)
        images.cache()
    return images


def check_same_classes(images: Mapping[str, Images]) -> None:
    """Class folders are numbered in sorted order, so one that is missing in a split would shift all labels after it.

    Raises:
        InputError: naming the folders that only some splits have.
    """
    first, *others = images
    count = len(images[first].source.classes)
    for split in others:
        highest = int(images[split].source.labels.max())
        if highest >= count:
            raise InputError(
                f"The split {split} has the label {highest}, and {first} has {count} classes.",
                remedy="labels count from 0; write classes.txt with one line for each class",
            )
    folders = {}
    for split, data in images.items():
        root = data.source.root / split
        if root.is_dir() and not any(data.source.root.glob(f"{split}-*.tar")):
            folders[split] = {path.name for path in root.iterdir() if path.is_dir()}
    for split, names in folders.items():
        missing = sorted(set().union(*folders.values()) - names)
        if missing:
            raise InputError(
                f"{len(missing)} class folders are missing in {split}/: {', '.join(missing[:6])}.",
                remedy="add them, or remove those classes from the other splits",
            )
