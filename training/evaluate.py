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
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from cast_sdk.spec import ModelSpec
    from cast_sdk.training.data.dataset import Images, LabelledViews
    from cast_sdk.training.engine.distributed import World

ARTIFACTS = (".onnx", ".engine")


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--model", "path", required=True, help="Checkpoint, hf://owner/repository/file, .onnx or .engine.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder with the images.")
@click.option("--split", default="val", show_default=True, help="Split of the data folder.")
@click.option("--fit", type=click.Choice(["auto", "crop", "stretch"]), default="auto", show_default=True,
              help="Centre crop as published (auto: for 224 pixels), or the whole image.")  # fmt: skip
@click.option("--ema", is_flag=True, help="The averaged weights of a training checkpoint.")
@click.option("--batch", default=64, show_default=True, help="Images per process and step.")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--workers", default=0, show_default=True, help="Loader processes per process.")
@click.option("--on-bad-image", type=click.Choice(["error", "skip"]), default="error", show_default=True)
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
    as_json: bool,
) -> None:
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people, load_images

    with errors_for_people():
        world = start(device)
        images = load_images(data, split, on_bad_image, False, world)
        if path.endswith(ARTIFACTS):
            metrics = artifact_accuracy(path, images, fit)
        else:
            model = open_checkpoint(path, ema).to(world.device)
            views = evaluation_views(model.spec, images, fit)  # type: ignore[arg-type]
            metrics = accuracy(model, views, world, batch, precision=precision, workers=workers)
        if world.main:
            text = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            print(json.dumps({"model": path, "images": len(images), **metrics}) if as_json else f"{path}: {text}")
        world.finish()


def open_checkpoint(path: str, ema: bool = False) -> nn.Module:
    """A checkpoint's model in evaluation mode; with `ema` its averaged weights.

    Raises:
        CheckpointError: as `load_model`, or when there are no averaged weights.
    """
    from cast_sdk.errors import CheckpointError
    from cast_sdk.models import load_model
    from cast_sdk.models.checkpoints import fill, read_file

    model = load_model(path)
    if ema:
        raw = read_file(path)
        if "model_ema" not in raw:
            raise CheckpointError(
                "--ema needs a checkpoint with averaged weights.",
                found=f"{path} with {', '.join(sorted(raw))}",
                remedy="leave --ema out, or train with --set train.ema=0.9998",
            )
        fill(model, raw["model_ema"], path)
    return model


def evaluation_views(spec: ModelSpec, images: Images, fit: str = "auto") -> LabelledViews:
    """The images of a split as a model with this spec was evaluated in its training.

    Raises:
        InputError: when the model's classes are not those of the data.
    """
    from cast_sdk.errors import InputError
    from cast_sdk.training.data.dataset import LabelledViews
    from cast_sdk.training.engine.recipe import recipe_from_dict

    classes = int(images.source.labels.max()) + 1
    if not spec.num_classes or spec.dense or classes > spec.num_classes:
        raise InputError(
            "Accuracy needs a classifier for the data's classes.",
            found=f"{spec.name} with {spec.num_classes} classes, data with {classes}",
            remedy="evaluate a supervised model or a linear probe on the data it was trained for",
        )
    crop = spec.image_size == 224 if fit == "auto" else fit == "crop"
    deit = spec.family == "cast_deit"
    asked = spec.superpixels
    recipe = recipe_from_dict(
        {
            "augment": {
                "image_size": spec.image_size,
                "interpolation": "bicubic" if deit else "bilinear",
                "eval_resize": int(spec.image_size / 0.875) if crop else 0,
            },
            "superpixels": {
                "count": asked.count,
                "bins": asked.bins,
                "iterations": asked.iterations,
                "source": "denormalised" if deit else "crop",
            },
        }
    )
    return LabelledViews(images, recipe, train=False)


def accuracy(
    model: nn.Module, views: Any, world: World, batch: int, *, precision: str = "fp32", workers: int = 0
) -> dict[str, float]:
    """Top-1 and top-5 in percent and the mean cross entropy over all images, shared among the processes."""
    import torch
    import torch.nn.functional as F

    from cast_sdk.training.data.dataset import loader
    from cast_sdk.training.data.sampler import EpochSampler
    from cast_sdk.training.engine.loop import DTYPES

    sampler = EpochSampler(len(views), batch, rank=world.rank, world=world.size, shuffle=False, drop_last=False)
    device = world.device
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    mode = model.training
    model.eval()
    with torch.no_grad():
        for packed in loader(views, sampler, workers):
            images, superpixels, targets = to_device(packed, device)
            with torch.autocast(device.type, DTYPES.get(precision), enabled=precision in DTYPES):
                logits = model(images, superpixels, num_superpixels=views.count(superpixels)).logits.float()
            hits = logits.topk(min(5, logits.shape[1]), 1).indices == targets[:, None]
            loss = F.cross_entropy(logits, targets, reduction="sum")
            sums += torch.stack(
                [hits[:, :1].sum(), hits.sum(), loss, torch.tensor(len(images), device=device)]
            ).double()
    model.train(mode)
    top1, top5, loss, total = world.sum(sums).tolist()
    return {"top1": 100 * top1 / total, "top5": 100 * top5 / total, "loss": loss / total}


def artifact_accuracy(path: str, images: Images, fit: str = "auto") -> dict[str, float]:
    """Top-1 and top-5 in percent of an exported file, run as applications run it, on the same pixels as `accuracy`."""
    import cast_sdk

    with cast_sdk.Runtime(path) as runtime:
        views = evaluation_views(runtime.spec, images, fit)
        top1 = top5 = 0
        for index in range(len(views)):
            image, _, target = views[(index, 0, index)]
            best = [number for number, _, _ in runtime.segment(bgr(image)).top(5)]
            top1 += best[0] == target
            top5 += target in best
    return {"top1": 100 * top1 / len(views), "top5": 100 * top5 / len(views)}


def bgr(image: Tensor) -> Any:
    """uint8 or normalised [3,H,W] -> the uint8 [H,W,3] frame that OpenCV would give."""
    import numpy as np
    import torch

    from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD

    if image.is_floating_point():
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        image = (image * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy()[:, :, ::-1])


def to_device(batch: Any, device: torch.device, channels_last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """A loader's batch as normalised images, superpixels and targets on the device."""
    import torch

    from cast_sdk.training.data.transforms import normalise

    images, superpixels, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
    images = normalise(images)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return images, superpixels, targets


if __name__ == "__main__":
    main()
