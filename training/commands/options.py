"""Options that the commands for own data share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cast_sdk.runtime.commands.common import FiniteRange

if TYPE_CHECKING:
    from cast_sdk.training.own.running import Request

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound="Request")


def own_options(image_size: str, lr: str) -> Callable[[F], F]:
    """DATA and the options of `classify` and `segment`; the arguments say what two of them are by default."""
    options = [
        click.argument("data", type=click.Path(path_type=Path)),
        click.option("--out", "-o", type=click.Path(path_type=Path), metavar="RUN",
                     help="Folder of the run; goes on with what it holds.  [default: runs/NAME of the data]"),
        click.option("--model", "-m", metavar="FILE", help="Checkpoint to start from.  [default: the bundled model]"),
        click.option("--validation", type=FiniteRange(0, 1, min_open=True, max_open=True), default=0.2,
                     show_default=True, help="Share split off to judge by, where the data has none."),
        click.option("--epochs", type=click.IntRange(1), help="Passes over the data.  [default: by its size]"),
        click.option("--image-size", type=click.IntRange(8), metavar="PIXELS",
                     help=f"Side of the model's input.  [default: {image_size}]"),
        click.option("--batch", type=click.IntRange(1), help="Images a step.  [default: by the data's size]"),
        click.option("--lr", type=FiniteRange(0, min_open=True), help=f"Learning rate.  [default: {lr}]"),
        click.option("--balance", type=click.Choice(["auto", "yes", "no"]), default="auto", show_default=True,
                     help="Let rare classes count as much as frequent ones."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of split and training."),
        click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
                     help="Change any value of the recipe (RUN/recipe.yaml shows all)."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
        click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Loader processes."),
        click.option("--on-bad-image", type=click.Choice(["error", "skip"]), default="error", show_default=True,
                     help="Refuse unreadable images, or leave them out and name them."),
        click.option("--dry-run", is_flag=True, help="Look at the data, say the plan and stop."),
    ]  # fmt: skip

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def own_request(kind: type[R], options: dict[str, Any]) -> R:
    """The request of `classify` or `segment`: options that are none of its fields are choices for the recipe."""
    import dataclasses

    from cast_sdk.training.own.classes.planning import Choices

    given = {field.name: options.pop(field.name) for field in dataclasses.fields(kind) if field.name in options}
    given["out"] = given["out"] or default_out(given["data"])
    given["model"] = given["model"] or "bundled"
    return kind(**given, choices=Choices(precision=own_precision(given["device"]), **options))


def default_out(data: Path) -> Path:
    """`runs/NAME` in the current folder."""
    return Path("runs") / (data.resolve().stem or "run")


def need_packages() -> None:
    """Refuse before any work where the packages of training or export are missing.

    Raises:
        MissingDependencyError: with the command that installs them.
    """
    from cast_sdk.system.installing import require

    require("train", "Training")
    require("export", "Exporting")


def own_precision(device: str) -> str:
    """bf16 where the processor or the GPU computes in it, else fp32."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "fp32"
