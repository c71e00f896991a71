"""`cast-train classify`: from a person's labelled images to a classifier that runs, with a report."""

from __future__ import annotations

from pathlib import Path

from cast_sdk.system.files import atomic_write
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.own import run_folder
from cast_sdk.training.own.classes.finishing import finish
from cast_sdk.training.own.classes.labelled import TRAIN, VAL
from cast_sdk.training.own.classes.preparing import Prepared, description, prepare
from cast_sdk.training.own.images import OwnImages
from cast_sdk.training.own.running import KeepsTheEnd, Request, carry_out, log, loop_for
from cast_sdk.training.own.splitting import write_split
from cast_sdk.training.tasks.classification import Classification


class OwnClassification(KeepsTheEnd, Classification):
    """Task of `cast-train classify`."""


def classify(request: Request) -> bool:
    """Fine-tune, report and export. False when it was interrupted: the same call goes on.

    Raises:
        CastError: for data, options or a folder that do not fit, before anything is written.
    """
    run_folder.check_free(request.out, request.data)
    ready = prepare(request)
    return carry_out(ready, request, description(ready, request), write_inputs, train, finish)


def write_inputs(ready: Prepared, out: Path) -> None:
    """The split and the recipe, beside the record of the run."""
    images = ready.images
    files = [
        str(Path(path).resolve()) if offset < 0 else name
        for (path, offset, _), name in zip(images.places, images.names, strict=True)
    ]  # so that the table can be read from where it lies
    write_split(out / run_folder.SPLIT, files, [images.classes[label] for label in images.labels], ready.split)
    run_folder.write_recipe(out, ready.plan.recipe)


def train(ready: Prepared, request: Request, world: World) -> tuple[Classification, bool]:
    """Run the loop to its end, or until it is interrupted. The task, and whether it ended."""
    recipe, side = ready.plan.recipe, ready.plan.recipe.augment.image_size
    images = {
        name: OwnImages(ready.images.source(ready.chosen(part), name), side, part == TRAIN, request.on_bad_image)
        for name, part in (("train", TRAIN), ("val", VAL))
    }
    for split in images.values():
        split.keep()
    fresh = OwnClassification.begins_anew(request.out, world)
    task = OwnClassification.build(recipe, images, world, request.workers, fresh=fresh)
    loop = loop_for(task, ready, request)
    if fresh and recipe.model.head_start == "probe":
        metrics = task.validate()
        if world.main:
            log.info("before fine-tuning, a linear probe of the frozen model: %.1f %% right", metrics["top1"])
            with atomic_write(request.out / run_folder.START) as temporary:
                temporary.write_text(f'{{"top1": {metrics["top1"]:.4f}}}\n')
    loop.run()
    return task, not loop.stop
