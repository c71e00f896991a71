"""A run from a person's data to its report: what is the same for every kind of labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cast_sdk.training.data.dataset import OnBadImage
from cast_sdk.training.engine.distributed import World, start
from cast_sdk.training.engine.loop import Loop
from cast_sdk.training.engine.models import BUNDLED
from cast_sdk.training.engine.options import Options
from cast_sdk.training.engine.task import Task
from cast_sdk.training.own import run_folder
from cast_sdk.training.own.classes.planning import Choices, Plan

log = logging.getLogger("cast_sdk.training")


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    data: Path
    out: Path
    model: str = BUNDLED
    validation: float = 0.2
    choices: Choices = field(default_factory=Choices)
    device: str = "auto"
    workers: int = 0
    on_bad_image: OnBadImage = "error"
    dry_run: bool = False


class Ready(Protocol):
    """Data that was looked at and split, and the plan made for it.

    Attributes:
        plan: the recipe.
        made_by: what decides the result, see `run_folder.claim`.
    """

    plan: Plan
    made_by: dict[str, Any]


R = TypeVar("R", bound=Ready)
T = TypeVar("T", bound=Task)


class KeepsTheEnd:
    """For a task: the weights of the end are kept, not those that the judging images like best.

    So the number that those images give at the end stays honest.
    """

    best_file = ""

    def better(self, new: dict[str, float], best: dict[str, float]) -> bool:
        return True


def carry_out(
    ready: R,
    request: Request,
    lines: Sequence[str],
    write_inputs: Callable[[R, Path], None],
    train: Callable[[R, Request, World], tuple[T, bool]],
    finish: Callable[[T, R, Request], None],
) -> bool:
    """Say the plan, claim the folder, train and report. False when it was interrupted: the same call goes on.

    Args:
        ready: the data and the plan.
        request: what was asked for.
        lines: data and plan for people, said before anything starts.
        write_inputs: writes the split and the recipe into the folder of a new run.
        train: runs the loop; the task, and whether it ended.
        finish: writes the report and the exported file.

    Raises:
        RecipeError: for a folder of another run.
    """
    world = start(request.device)
    if world.main:
        for line in lines:
            log.info("%s", line)
    finished = True if request.dry_run else _work(ready, request, world, write_inputs, train, finish)
    world.finish()
    return finished


def _work(
    ready: R,
    request: Request,
    world: World,
    write_inputs: Callable[[R, Path], None],
    train: Callable[[R, Request, World], tuple[T, bool]],
    finish: Callable[[T, R, Request], None],
) -> bool:
    report = request.out / run_folder.REPORT

    def begin() -> bool:
        """Whether the run is finished already."""
        if run_folder.claim(request.out, ready.made_by) and report.is_file():
            log.info("this run is finished: %s", report)
            return True
        write_inputs(ready, request.out)
        return False

    if world.decided_by_main(begin):
        return True
    task, finished = train(ready, request, world)
    if finished and world.main:
        finish(task, ready, request)
    return finished


def loop_for(task: Task, ready: Ready, request: Request) -> Loop:
    """The loop of a run: about ten validations, no TensorBoard."""
    every = run_folder.eval_every(ready.plan.recipe.schedule.epochs)
    return Loop(task, Options(request.out, request.workers, eval_every=every, tensorboard=False))
