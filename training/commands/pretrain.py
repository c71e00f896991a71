"""cast-train pretrain: an encoder from images without labels."""

from __future__ import annotations

from pathlib import Path

import click

from cast_sdk.runtime.commands.common import clean_exit, common_options
from cast_sdk.runtime.commands.program import Command
from cast_sdk.training.commands.options import default_out


@click.command(cls=Command)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(path_type=Path), metavar="RUN",
              help="Folder of the run; goes on with what it holds.  [default: runs/NAME of the data]")  # fmt: skip
@click.option("--recipe", default="tiny_moco", show_default=True, help="See: cast-train recipes")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the data.  [default: the recipe's]")
@click.option("--batch", type=click.IntRange(2), help="Images a step.  [default: the recipe's]")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Loader processes.")
@click.option("--on-bad-image", type=click.Choice(["error", "skip"]), default="error", show_default=True)
@common_options
@clean_exit()
def main(
    data: Path,
    out: Path | None,
    recipe: str,
    epochs: int | None,
    batch: int | None,
    overrides: tuple[str, ...],
    device: str,
    workers: int,
    on_bad_image: str,
) -> None:
    """Pre-train an encoder on DATA, a folder of images (deep), by MoCo-v3.

    No labels are read. Afterwards: cast-train classify LABELLED --model RUN/checkpoint.pth.tar. The default recipe is
    sized for a processor; the same command goes on after an interruption.
    """
    from cast_sdk.system.installing import require

    require("train", "Training")
    from cast_sdk.training.own.pretrain import pretrain

    given = [f"schedule.epochs={epochs}"] if epochs else []
    given += [f"train.batch={batch}"] if batch else []
    if not pretrain(data, out or default_out(data), recipe, (*given, *overrides), device, workers, on_bad_image):
        raise SystemExit(130)
