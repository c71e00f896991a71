"""`cast-train classify`: from a person's labelled images to a classifier that runs, with a report."""

from __future__ import annotations

import logging
from pathlib import Path

from cast_sdk.system.files import atomic_write
from cast_sdk.training.engine.distributed import World, start
from cast_sdk.training.engine.loop import Loop
from cast_sdk.training.engine.options import Options
from cast_sdk.training.own import run_folder
from cast_sdk.training.own.classes.finishing import finish
from cast_sdk.training.own.classes.labelled import TRAIN, VAL
from cast_sdk.training.own.classes.preparing import Prepared, Request, description, prepare
from cast_sdk.training.own.images import OwnImages
from cast_sdk.training.own.splitting import write_split
from cast_sdk.training.tasks.classification import Classification

log = logging.getLogger("cast_sdk.training")


class OwnClassification(Classification):
    """The weights of the end are kept, not those that the judging images like best: so their number stays honest."""

    best_file = ""

    def better(self, new: dict[str, float], best: dict[str, float]) -> bool:
        return True


def classify(request: Request) -> bool:
    """Fine-tune, report and export. False when it was interrupted: the same call goes on.

    Raises:
        CastError: for data, options or a folder that do not fit, before anything is written.
    """
    run_folder.check_free(request.out, request.data)
    ready = prepare(request)
    world = start(request.device)
    if world.main:
        tell(ready, request)
    if request.dry_run:
        return True
    if world.main:
        known = run_folder.claim(request.out, ready.made_by)
        if known and (request.out / run_folder.REPORT).is_file():
            log.info("this run is finished: %s", request.out / run_folder.REPORT)
        else:
            write_inputs(ready, request.out)
    world.barrier()
    if (request.out / run_folder.REPORT).is_file():
        world.finish()
        return True
    task, finished = train(ready, request, world)
    if finished and world.main:
        finish(task, ready, request)
    world.finish()
    return finished


def tell(ready: Prepared, request: Request) -> None:
    """Say what was found and what will be done, before it starts."""
    for line in description(ready, request):
        log.info("%s", line)


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
    fresh = not (request.out / OwnClassification.rolling).is_file()
    task = OwnClassification.build(recipe, images, world, request.workers, fresh=fresh)
    options = Options(
        request.out, request.workers, eval_every=run_folder.eval_every(recipe.schedule.epochs), tensorboard=False
    )
    loop = Loop(task, options)
    if fresh and recipe.model.head_start == "probe":
        metrics = task.validate()
        if world.main:
            log.info("before fine-tuning, a linear probe of the frozen model: %.1f %% right", metrics["top1"])
            with atomic_write(request.out / "start.json") as temporary:
                temporary.write_text(f'{{"top1": {metrics["top1"]:.4f}}}\n')
    loop.run()
    return task, not loop.stop
