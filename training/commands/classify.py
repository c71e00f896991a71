"""cast-train classify: a classifier from labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cast_sdk.runtime.commands.common import clean_exit, common_options
from cast_sdk.training.commands.options import default_out, need_packages, own_options, own_precision


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@own_options
@click.option("--taxonomy", metavar="TREE", default="", help="One head per level: a CSV of classes and their parents.")
@common_options
@clean_exit()
def main(data: Path, out: Path | None, model: str | None, validation: float, device: Any, workers: int,
         on_bad_image: Any, dry_run: bool, **choices: Any) -> None:  # fmt: skip
    """Fine-tune a classifier on DATA and export it.

    \b
    DATA is one of
      a folder of class folders             birds/robin/*.jpg birds/wren/*.jpg
      the same below train/ (and val/)      birds/train/robin/*.jpg
      a table of path,class[,split]         birds.csv
      tar shards                            birds/train-*.tar with key.jpg and key.cls

    What was found and what will be done is said before it starts. RUN gets model.onnx, compared with the checkpoint
    and run on the images that judge, model.safetensors, report.html, split.csv and predictions.csv. The same command
    goes on after an interruption.
    """
    need_packages()
    from cast_sdk.training.own.classes.classify import classify
    from cast_sdk.training.own.classes.planning import Choices
    from cast_sdk.training.own.classes.preparing import Request

    request = Request(
        data,
        out or default_out(data),
        model or "bundled",
        validation,
        Choices(precision=own_precision(device), **choices),
        device,
        workers,
        on_bad_image,
        dry_run,
    )
    if not classify(request):
        raise SystemExit(130)
