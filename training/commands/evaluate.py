"""cast-train evaluate: how right a classifier or a segmenter is on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.errors import InputError
from cast_sdk.runtime.commands.common import clean_exit, common_options
from cast_sdk.runtime.commands.program import Command

if TYPE_CHECKING:
    from cast_sdk.runtime.runtime import Runtime


@click.command(cls=Command)
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["all", "train", "val", "test"]), default="all", show_default=True,
              help="Which images, where DATA has a split: RUN/split.csv, folders train/, val/, test/.")  # fmt: skip
@click.option(
    "--unlabelled",
    type=click.Choice(["background", "ignore"]),
    help="Of masks: what pixels outside of all polygons are [default: background].",
)
@click.option("--on-bad-image", type=click.Choice(["error", "skip"]), default="error", show_default=True,
              help="Refuse unreadable images, or leave them out and name them.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@common_options
@clean_exit()
def main(model: str, data: Path, split: str, unlabelled: Any, on_bad_image: Any, as_json: bool) -> None:
    """Run MODEL (.onnx, .engine or a checkpoint) on the labelled images of DATA, as applications run it.

    DATA is what classify takes or, for a segmenter, what segment takes; RUN/split.csv with --split val are the images
    that judged a run. Classes are matched by name, so DATA may have some of the model's classes only, in any order.

    Published numbers (centre crops, sliding windows, several processes): python -m cast_sdk.training.evaluate and
    python -m cast_sdk.training.segment evaluate
    """
    import json

    from cast_sdk.runtime.runtime import Runtime

    with Runtime(model) as runtime:
        dense = runtime.spec.dense
        judge = judge_masks if dense else judge_classes
        result = judge(runtime, data, split, unlabelled, on_bad_image)
    if as_json:
        click.echo(json.dumps(result))
        return
    if dense:
        click.echo(f"mean IoU {result['mean_iou']:.1f} %, {result['pixel_accuracy']:.1f} % of the pixels right, "
                   f"{result['images']} images")  # fmt: skip
        judged = {name: row for name, row in result["classes"].items() if row["iou"] is not None}
        for name, row in sorted(judged.items(), key=lambda item: item[1]["iou"])[:20]:
            click.echo(f"  {row['iou']:5.1f} %  {name} ({row['pixels']:.1f} % of the pixels)")
        return
    click.echo(f"{result['accuracy']:.1f} % right of {result['images']} images, "
               f"{result['balanced_accuracy']:.1f} % by class")  # fmt: skip
    for name, row in sorted(result["classes"].items(), key=lambda item: item[1]["found"])[:20]:
        click.echo(f"  {row['found']:5.1f} %  {name} ({row['images']} images)")


def judge_classes(runtime: Runtime, data: Path, split: str, unlabelled: Any, on_bad: Any) -> dict[str, Any]:
    from cast_sdk.training.own.classes.evaluate import evaluate

    if unlabelled is not None:
        raise InputError(f"{runtime.path} is a classifier: --unlabelled is for masks.", remedy="leave --unlabelled out")
    return evaluate(runtime, data, split, on_bad)


def judge_masks(runtime: Runtime, data: Path, split: str, unlabelled: Any, on_bad: Any) -> dict[str, Any]:
    from cast_sdk.training.own.dense.evaluate import evaluate

    return evaluate(runtime, data, split, unlabelled, on_bad)
