"""Command-line options that the training programs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

recipe = click.option("--recipe", required=True, help="Name in training/recipes, or a YAML file.")
overrides = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe.")
device = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
on_bad_image = click.option(
    "--on-bad-image",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="Stop at an unreadable image, or leave it out and name it.",
)


def data(text: str) -> Callable[[F], F]:
    """--data with its help text."""
    return click.option("--data", required=True, type=click.Path(path_type=Path), help=text)


def run_options(
    data_help: str, *, cache: bool = True, eval_every: int | None = 1, log_every: int = 50
) -> Callable[[F], F]:
    """Options of a training run: recipe, data, out, overrides, device, workers, reports, checkpoints.

    Args:
        data_help: help of --data.
        cache: offer --cache.
        eval_every: default of --eval-every; None leaves the option out.
        log_every: default of --log-every.
    """
    options = [
        recipe,
        data(data_help),
        click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder; resumes what it holds."),
        overrides,
        device,
        click.option("--workers", default=0, show_default=True, help="Loader processes per training process."),
    ]
    if cache:
        text = "Decode all images once and keep them in memory."
        options.append(click.option("--cache/--no-cache", default=False, help=text))
    options.append(on_bad_image)
    if eval_every is not None:
        text = "Epochs between validations."
        options.append(click.option("--eval-every", default=eval_every, show_default=True, help=text))
    options += [
        click.option("--log-every", default=log_every, show_default=True, help="Steps between reports."),
        click.option(
            "--save-minutes", default=5.0, show_default=True, help="Minutes between checkpoints inside an epoch."
        ),
        click.option(
            "--allow-world-size", is_flag=True, help="Resume on another number of processes, not bit for bit."
        ),
    ]

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add
