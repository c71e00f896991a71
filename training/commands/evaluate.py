"""cast-train evaluate: how right a classifier is on labelled images."""

from __future__ import annotations

from pathlib import Path

import click

from cast_sdk.runtime.commands.common import clean_exit, common_options
from cast_sdk.runtime.commands.program import Command


@click.command(cls=Command)
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["all", "train", "val", "test"]), default="all", show_default=True,
              help="Which images, where DATA has a split: RUN/split.csv, folders train/, val/, test/.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@common_options
@clean_exit()
def main(model: str, data: Path, split: str, as_json: bool) -> None:
    """Run MODEL (.onnx, .engine or a checkpoint) on the labelled images of DATA, as applications run it.

    DATA is what classify takes. Classes are matched by name, so DATA may have some of the model's classes only, in any
    order. Published numbers (ImageNet, centre crops, several processes): python -m cast_sdk.training.evaluate
    """
    import json

    from cast_sdk.training.own.classes.evaluate import evaluate

    result = evaluate(model, data, split)
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{result['accuracy']:.1f} % right of {result['images']} images, "
               f"{result['balanced_accuracy']:.1f} % by class")  # fmt: skip
    for name, row in sorted(result["classes"].items(), key=lambda item: item[1]["found"])[:20]:
        click.echo(f"  {row['found']:5.1f} %  {name} ({row['images']} images)")
