"""Top-1 and top-5 of any classifier: a checkpoint, official or own, or an exported .onnx or .engine file.

    python training/evaluate.py --model runs/tiny/best_checkpoint.pth --data DATA
    python training/evaluate.py --model cast_s.onnx --data ILSVRC2014/Img
    torchrun --nproc-per-node 8 training/evaluate.py --model best_checkpoint.pth --data ILSVRC2014/Img

Images are prepared as in the model's training: its size, its superpixel settings, the DeiT family bicubic and with
superpixels of the de-normalised image. `python -m cast_sdk.training.evaluate` is the same program.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cast_sdk.runtime.commands.common import OrdinaryPath
from cast_sdk.runtime.commands.program import Command

ARTIFACTS = (".onnx", ".engine")


@click.command(cls=Command, help=(__doc__ or "").partition("\n")[0])
@click.option("--model", "path", required=True, help="Checkpoint, hf://owner/repository/file, .onnx or .engine.")
@click.option("--data", required=True, type=OrdinaryPath(path_type=Path), help="Folder with the images.")
@click.option("--split", default="val", show_default=True, help="Split of the data folder.")
@click.option("--fit", type=click.Choice(["auto", "crop", "stretch"]), default="auto", show_default=True,
              help="Centre crop as published (auto: for 224 pixels), or the whole image.")  # fmt: skip
@click.option("--ema", is_flag=True, help="The averaged weights of a training checkpoint.")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Images per process and step.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--workers", type=click.IntRange(0, 1024), default=0, show_default=True, help="Loader processes per process."
)
@click.option("--on-bad-image", type=click.Choice(["error", "skip"]), default="error", show_default=True)
@click.option("--taxonomy", "tree", metavar="TREE", help="Judge a model with one head along a taxonomy too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a line.")
def main(
    path: str,
    data: Path,
    split: str,
    fit: str,
    ema: bool,
    batch: int,
    precision: str,
    device: str,
    workers: int,
    on_bad_image: Any,
    tree: str | None,
    as_json: bool,
) -> None:
    from cast_sdk.training.data.taxonomy import taxonomy_for
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people, load_images
    from cast_sdk.training.metrics.accuracy import accuracy, artifact_accuracy, evaluation_views, open_checkpoint

    with errors_for_people():
        world = start(device)
        images = load_images(data, split, on_bad_image, False, world)
        levels = taxonomy_for(tree, images.source.classes) if tree else ()
        if path.endswith(ARTIFACTS):
            metrics = artifact_accuracy(path, images, fit, levels)
        else:
            model = open_checkpoint(path, ema).to(world.device)
            views = evaluation_views(model.spec, images, fit)
            metrics = accuracy(model, views, world, batch, precision=precision, workers=workers, levels=levels)
        if world.main:
            text = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            print(json.dumps({"model": path, "images": len(images), **metrics}) if as_json else f"{path}: {text}")
        world.finish()


if __name__ == "__main__":
    main()
