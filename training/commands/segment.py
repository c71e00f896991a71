"""cast-train segment: a segmenter from images and masks."""

from __future__ import annotations

from typing import Any

import click

from cast_sdk.runtime.commands.common import clean_exit, common_options
from cast_sdk.runtime.commands.program import Command
from cast_sdk.training.commands.options import need_packages, own_options, own_request


@click.command(cls=Command)
@own_options(image_size="by the images, 256 at most", lr="0.001")
@click.option("--unlabelled", type=click.Choice(["background", "ignore"]), default="background", show_default=True,
              help="With polygons: pixels outside of all are a class of their own, or do not count.")  # fmt: skip
@common_options
@clean_exit()
def main(**options: Any) -> None:
    """Fine-tune a segmenter on the images and masks of DATA and export it.

    \b
    DATA is one of
      images/ and masks/     PNG of one index a pixel, palette or not; 255 does not count; classes.txt: names
      a COCO JSON            polygons or run lengths, beside its images or with images/
      LabelMe files          a JSON beside each image

    A split is taken from folders train/ and val/ (also inside images/), or from COCO files with these names; otherwise
    it is made. RUN gets model.onnx, compared with the checkpoint and run on the images that judge, model.safetensors,
    report.html and split.csv. The same command goes on after an interruption.
    """
    need_packages()
    from cast_sdk.training.own.dense.preparing import MaskRequest
    from cast_sdk.training.own.dense.segment import segment

    if not segment(own_request(MaskRequest, options)):
        raise SystemExit(130)
