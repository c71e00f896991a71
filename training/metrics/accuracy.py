"""Top-1 and top-5 of classifiers: checkpoints and exported files, on images prepared as in their training."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

import cast_sdk
from cast_sdk.errors import CheckpointError, InputError
from cast_sdk.models import Model, load_model
from cast_sdk.models.checkpoints.loading import fill
from cast_sdk.models.checkpoints.reading import read_file
from cast_sdk.spec import ModelSpec
from cast_sdk.taxonomy import Taxonomy, path_table
from cast_sdk.training.data.dataset import Images, LabelledViews, loader, to_device
from cast_sdk.training.data.sampler import EpochSampler
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.loop import DTYPES
from cast_sdk.training.engine.recipe.settings import Augment, Recipe, Superpixels
from cast_sdk.training.metrics.taxonomy import PathTally


def open_checkpoint(path: str, ema: bool = False) -> Model:
    """A checkpoint's model in evaluation mode; with `ema` its averaged weights.

    Raises:
        CheckpointError: as `load_model`, or when there are no averaged weights.
    """
    model = load_model(path)
    if ema:
        raw = read_file(path)
        if "model_ema" not in raw:
            raise CheckpointError(
                f"{path} has no averaged weights.",
                found=", ".join(sorted(raw)),
                remedy="leave --ema out, or train with --set train.ema=0.9998",
            )
        fill(model, raw["model_ema"], path)
    return model


def evaluation_views(spec: ModelSpec, images: Images, fit: str = "auto") -> LabelledViews:
    """The images of a split as a model with this spec was evaluated in its training.

    Raises:
        InputError: when the model's classes are not those of the data.
    """
    classes = int(images.source.labels.max()) + 1
    if not spec.num_classes or spec.dense or classes > spec.num_classes:
        raise InputError(
            f"{spec.name} is no classifier for {classes} classes.",
            found="segmentation of pixels" if spec.dense else f"{spec.num_classes} classes",
            remedy="evaluate a supervised model or a linear probe on the data it was trained for",
        )
    crop = spec.image_size == 224 if fit == "auto" else fit == "crop"
    deit = spec.family == "cast_deit"
    augment = Augment(
        image_size=spec.image_size,
        interpolation="bicubic" if deit else "bilinear",
        eval_resize=int(spec.image_size / 0.875) if crop else 0,
        eval_mean=spec.mean,
        eval_std=spec.std,
    )
    superpixels = Superpixels(source="denormalised" if deit else "crop", **dataclasses.asdict(spec.superpixels))
    recipe = Recipe(augment=augment, superpixels=superpixels)
    return LabelledViews(images, recipe, train=False)


def accuracy(
    model: nn.Module,
    views: Any,
    world: World,
    batch: int,
    *,
    precision: str = "fp32",
    workers: int = 0,
    levels: Taxonomy = (),
    batches: DataLoader[Any] | None = None,
) -> dict[str, float]:
    """Top-1 and top-5 in percent and the mean cross entropy over all images, shared among the processes.

    `batches` is `evaluation_batches` of the same arguments, for who measures often: its workers stay.
    A model that knows its taxonomy, or one with one head that is judged along `levels`, also gives what
    `cast_sdk.training.metrics.taxonomy.PathTally` counts.
    """
    batches = evaluation_batches(views, world, batch, workers) if batches is None else batches
    device = world.device
    sums = torch.zeros(4, dtype=torch.float64, device=device)
    tally = path_tally(model.spec, levels)  # type: ignore[arg-type]
    mode = model.training
    model.eval()
    with torch.no_grad():
        for packed in batches:
            images, superpixels, targets = to_device(packed, device)
            with torch.autocast(device.type, DTYPES.get(precision), enabled=precision in DTYPES):
                output = model(images, superpixels, num_superpixels=views.count(superpixels))
            logits = output.logits.float()
            if tally is not None:
                tally.add([level.float().cpu().numpy() for level in output.scores.values()], targets.cpu().numpy())
            hits = logits.topk(min(5, logits.shape[1]), 1).indices == targets[:, None]
            loss = F.cross_entropy(logits, targets, reduction="sum")
            sums += torch.stack(
                [hits[:, :1].sum(), hits.sum(), loss, torch.tensor(len(images), device=device)]
            ).double()
    model.train(mode)
    top1, top5, loss, total = world.sum(sums).tolist()
    metrics = {"top1": 100 * top1 / total, "top5": 100 * top5 / total, "loss": loss / total}
    if tally is not None:
        shared = world.sum(torch.tensor(tally.values, dtype=torch.float64, device=device))
        metrics |= tally.metrics(shared.cpu().numpy())
    return metrics


def evaluation_batches(views: Any, world: World, batch: int, workers: int = 0) -> DataLoader[Any]:
    """This process's share of a data set in order, none left out and none repeated."""
    sampler = EpochSampler(len(views), batch, rank=world.rank, world=world.size, shuffle=False, drop_last=False)
    return loader(views, sampler, workers)


def path_tally(spec: ModelSpec, levels: Taxonomy = ()) -> PathTally | None:
    """A tally for the model's taxonomy, or for `levels`; None without one, or without its tree.

    Raises:
        InputError: for levels to judge a model along that has a taxonomy of its own.
    """
    if levels and spec.taxonomy:
        raise InputError(f"{spec.name} has a taxonomy of its own.", remedy="leave --taxonomy out")
    judged = levels or spec.taxonomy
    return None if path_table(judged) is None else PathTally(judged)


def predictions(
    model: nn.Module, views: LabelledViews, batch: int = 64
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Class scores [N,classes] and labels [N] of all images of `views`, in order, on the CPU."""
    sampler = EpochSampler(len(views), batch, shuffle=False, drop_last=False)
    scores, labels = [], []
    with torch.inference_mode():
        for packed in loader(views, sampler):
            images, superpixels, targets = to_device(packed, torch.device("cpu"))
            scores.append(model(images, superpixels, num_superpixels=views.count(superpixels)).logits.numpy())
            labels.append(targets.numpy())
    return np.concatenate(scores), np.concatenate(labels)


def artifact_accuracy(path: str, images: Images, fit: str = "auto", levels: Taxonomy = ()) -> dict[str, float]:
    """Top-1 and top-5 in percent of an exported file, run as applications run it, on the same pixels as `accuracy`.

    With a taxonomy also what its tally counts.
    """
    with cast_sdk.Runtime(path) as runtime:
        views = evaluation_views(runtime.spec, images, fit)
        tally = path_tally(runtime.spec, levels)
        top1 = top5 = 0
        for index in range(len(views)):
            image, _, target = views[(index, 0, index)]
            result = runtime.segment(bgr(image, runtime.spec))
            best = [number for number, _, _ in result.top(5)]
            top1 += best[0] == target
            top5 += target in best
            if tally is not None:
                tally.add([result.outputs[name][None] for name in runtime.spec.score_names], np.array([target]))
    metrics = {"top1": 100 * top1 / len(views), "top5": 100 * top5 / len(views)}
    return metrics | (tally.metrics() if tally is not None else {})


def bgr(image: Tensor, spec: ModelSpec) -> Any:
    """uint8 or normalised [3,H,W] -> the uint8 [H,W,3] frame that OpenCV would give."""
    if image.is_floating_point():
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
        image = (image * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy()[:, :, ::-1])
