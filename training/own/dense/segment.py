"""`cast-train segment`: from a person's images and masks to a segmenter that runs, with a report."""

from __future__ import annotations

from pathlib import Path

from cast_sdk.training.data.dense.transforms import DenseViews
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.own import run_folder
from cast_sdk.training.own.classes.labelled import TRAIN, VAL
from cast_sdk.training.own.dense.preparing import MaskRequest, Prepared, description, prepare
from cast_sdk.training.own.dense.report import finish
from cast_sdk.training.own.running import KeepsTheEnd, Request, carry_out, loop_for
from cast_sdk.training.own.splitting import SPLITS, write_rows
from cast_sdk.training.tasks.segmentation import Segmentation, build_segmenter


class OwnSegmentation(KeepsTheEnd, Segmentation):
    """Task of `cast-train segment`."""


def segment(request: MaskRequest) -> bool:
    """Fine-tune, report and export. False when it was interrupted: the same call goes on.

    Raises:
        CastError: for data, options or a folder that do not fit, before anything is written.
    """
    run_folder.check_free(request.out, request.data)
    ready = prepare(request)
    return carry_out(ready, request, description(ready, request), write_inputs, train, finish)


def write_inputs(ready: Prepared, out: Path) -> None:
    """The split and the recipe, beside the record of the run."""
    rows = [(name, SPLITS[part]) for name, part in zip(ready.masked.names, ready.split, strict=True)]
    write_rows(out / run_folder.SPLIT, ("path", "split"), rows)
    run_folder.write_recipe(out, ready.plan.recipe)


def train(ready: Prepared, request: Request, world: World) -> tuple[OwnSegmentation, bool]:
    """Run the loop to its end, or until it is interrupted. The task, and whether it ended."""
    recipe = ready.plan.recipe
    own, judging = (ready.part(part, request.on_bad_image) for part in (TRAIN, VAL))
    model = build_segmenter(recipe, own).to(world.device)
    task = OwnSegmentation(recipe, model, DenseViews(own, recipe), judging, world)
    loop = loop_for(task, ready, request)
    loop.run()
    return task, not loop.stop
