"""Command-line options that the training programs share, and what a program gets from them: a `Run`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from cast_sdk.runtime.commands.common import FiniteRange, OrdinaryPath

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Options:
    """What a user chooses per machine; none of it changes the result."""

    out: Path
    workers: int = 0  # loader processes per training process
    eval_every: int = 1  # epochs
    log_every: int = 50  # steps
    save_minutes: float = 5.0
    allow_world_size: bool = False
    tensorboard: bool = True


@dataclass(frozen=True)
class Run:
    """A training run as its command line describes it."""

    recipe: str
    data: Path
    options: Options
    overrides: tuple[str, ...] = ()
    device: str = "auto"
    cache: bool = False
    on_bad_image: Literal["error", "skip"] = "error"


recipe = click.option("--recipe", required=True, help="Name in training/recipes, or a YAML file.")
overrides = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe.")
device = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
on_bad_image = click.option(
    "--on-bad-image",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="Stop at an unreadable image, or leave it out and name it.",
)


def data(text: str) -> Callable[[F], F]:
    """--data with its help text."""
    return click.option("--data", required=True, type=OrdinaryPath(path_type=Path), help=text)


def run_options(
    data_help: str, *, cache: bool = True, eval_every: int | None = 1, log_every: int = 50
) -> Callable[[F], Callable[..., Any]]:
    """Options of a training run: recipe, data, out, overrides, device, workers, reports, checkpoints.

    The command gets them as one `Run`, and its own options as keywords.

    Args:
        data_help: help of --data.
        cache: offer --cache.
        eval_every: default of --eval-every; None leaves the option out.
        log_every: default of --log-every.
    """
    options = [
        recipe,
        data(data_help),
        click.option("--out", required=True, type=OrdinaryPath(path_type=Path), help="Folder; resumes what it holds."),
        overrides,
        device,
        click.option(
            "--workers",
            type=click.IntRange(0, 1024),
            default=0,
            show_default=True,
            help="Loader processes per training process.",
        ),
    ]
    if cache:
        text = "Decode all images once and keep them in memory."
        options.append(click.option("--cache/--no-cache", default=False, help=text))
    options.append(on_bad_image)
    if eval_every is not None:
        text = "Epochs between validations."
        kind = click.IntRange(1)
        options.append(click.option("--eval-every", type=kind, default=eval_every, show_default=True, help=text))
    options += [
        click.option(
            "--log-every", type=click.IntRange(1), default=log_every, show_default=True, help="Steps between reports."
        ),
        click.option(
            "--save-minutes",
            type=FiniteRange(0, 1e6),
            default=5.0,
            show_default=True,
            help="Minutes between checkpoints inside an epoch.",
        ),
        click.option(
            "--allow-world-size", is_flag=True, help="Resume on another number of processes, not bit for bit."
        ),
    ]

    def add(command: F) -> Callable[..., Any]:
        @functools.wraps(command)
        def call(**values: Any) -> Any:
            machine = Options(**_taken(Options, values))
            return command(Run(options=machine, **_taken(Run, values)), **values)

        for option in reversed(options):
            call = option(call)
        return call

    return add


def _taken(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """The values that are fields of a dataclass, moved out of `values`."""
    return {one.name: values.pop(one.name) for one in fields(kind) if one.name in values}
