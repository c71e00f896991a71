"""`cast-train segment`: from a person's images and masks to a segmenter that runs, with a report."""

from __future__ import annotations

import logging

from cast_sdk.training.data.dense.transforms import DenseViews
from cast_sdk.training.engine.distributed import World, start
from cast_sdk.training.engine.loop import Loop
from cast_sdk.training.engine.options import Options
from cast_sdk.training.own import run_folder
from cast_sdk.training.own.classes.labelled import TRAIN, VAL
from cast_sdk.training.own.dense.preparing import Prepared, Request, description, prepare
from cast_sdk.training.own.dense.report import finish
from cast_sdk.training.own.splitting import SPLITS, write_rows
from cast_sdk.training.tasks.segmentation import Segmentation, build_segmenter

log = logging.getLogger("cast_sdk.training")


class OwnSegmentation(Segmentation):
    """The weights of the end are kept, not those that the judging images like best."""

    best_file = ""

    def better(self, new: dict[str, float], best: dict[str, float]) -> bool:
        return True


def segment(request: Request) -> bool:
    """Fine-tune, report and export. False when it was interrupted: the same call goes on.

    Raises:
        CastError: for data, options or a folder that do not fit, before anything is written.
    """
    run_folder.check_free(request.out, request.data)
    ready = prepare(request)
    world = start(request.device)
    if world.main:
        for line in description(ready, request):
            log.info("%s", line)
    if request.dry_run:
        return True
    if world.main:
        known = run_folder.claim(request.out, ready.made_by)
        if known and (request.out / run_folder.REPORT).is_file():
            log.info("this run is finished: %s", request.out / run_folder.REPORT)
        else:
            rows = [(name, SPLITS[part]) for name, part in zip(ready.masked.names, ready.split, strict=True)]
            write_rows(request.out / run_folder.SPLIT, ("path", "split"), rows)
            run_folder.write_recipe(request.out, ready.plan.recipe)
    world.barrier()
    if (request.out / run_folder.REPORT).is_file():
        world.finish()
        return True
    task, finished = train(ready, request, world)
    if finished and world.main:
        finish(task, ready, request)
    world.finish()
    return finished


def train(ready: Prepared, request: Request, world: World) -> tuple[OwnSegmentation, bool]:
    """Run the loop to its end, or until it is interrupted. The task, and whether it ended."""
    recipe = ready.plan.recipe
    own, judging = (ready.part(part, request.on_bad_image) for part in (TRAIN, VAL))
    model = build_segmenter(recipe, own).to(world.device)
    task = OwnSegmentation(recipe, model, DenseViews(own, recipe), judging, world)
    options = Options(
        request.out, request.workers, eval_every=run_folder.eval_every(recipe.schedule.epochs), tensorboard=False
    )
    loop = Loop(task, options)
    loop.run()
    return task, not loop.stop
