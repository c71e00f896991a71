"""cast-train classify: a classifier from labelled images."""

from __future__ import annotations

from typing import Any

import click

from cast_sdk.runtime.commands.common import clean_exit, common_options
from cast_sdk.runtime.commands.program import Command
from cast_sdk.training.commands.options import need_packages, own_options, own_request


@click.command(cls=Command)
@own_options(image_size="the model's", lr="by the batch")
@click.option("--taxonomy", metavar="TREE", default="", help="One head per level: a CSV of classes and their parents.")
@common_options
@clean_exit()
def main(**options: Any) -> None:
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
    from cast_sdk.training.own.running import Request

    if not classify(own_request(Request, options)):
        raise SystemExit(130)
