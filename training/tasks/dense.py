"""What Segmenter fine-tuning does with tensors: the loss, and prediction over sliding windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cast_sdk.models.dense import Segmenter
from cast_sdk.superpixels import seeds_count, superpixels_for
from cast_sdk.training.data import transforms
from cast_sdk.training.data.dense.base import DenseSplit
from cast_sdk.training.data.dense.transforms import Pixels, eval_resize, resize_image, scaled_size, seen
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.recipe.settings import Dense, Source
from cast_sdk.training.metrics.semantic import ConfusionMatrix, together
from cast_sdk.training.tasks import windows

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def class_histogram(superpixels: Tensor, target: Tensor, count: int, classes: int) -> Tensor:
    """Pixels of each class in each superpixel: float32 [N,S,classes].

    Args:
        superpixels: integer [N,H,W], labels below `count`.
        target: integer [N,H,W]; values outside 0..classes-1 do not count.
    """
    n = len(target)
    target, superpixels = target.flatten(1).long(), superpixels.flatten(1).long()
    valid = (target >= 0) & (target < classes)
    index = superpixels * classes + torch.where(valid, target, 0)
    counts = torch.zeros(n, count * classes, device=target.device)
    return counts.scatter_add_(1, index, valid.float()).view(n, count, classes)


def class_weights(pixels: npt.NDArray[np.int64], power: float) -> Tensor:
    """Loss weights (1 / share of pixels)^power, with mean 1 over the pixels; 0 for classes without any: float32 [n]."""
    share = pixels / pixels.sum()
    weights = np.where(share > 0, np.maximum(share, 1e-12) ** -power, 0.0)
    return torch.from_numpy(weights / (weights * share).sum()).float()


def superpixel_cross_entropy(
    scores: Tensor, superpixels: Tensor, target: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Mean cross entropy over the pixels that count, from one score per superpixel.

    Every pixel of a superpixel has the same scores, so counting its classes gives the same value and gradient as
    spreading the scores over the image, without [N,classes,H,W] in memory.

    Args:
        scores: [N,S,classes].
        superpixels: integer [N,H,W].
        target: integer [N,H,W], 255 for pixels that do not count.
        weights: [classes], how much a pixel of each class counts; the mean is over the weights, as in torch.
    """
    counts = class_histogram(superpixels, target, scores.shape[1], scores.shape[2])
    if weights is not None:
        counts = counts * weights
    return -(counts * scores.float().log_softmax(-1)).sum() / counts.sum().clamp(min=1e-6)


@dataclass(frozen=True)
class Inference:
    """How an image becomes a class map."""

    config: Dense
    stride: int
    ratios: tuple[float, ...] = (1.0,)
    flips: tuple[bool, ...] = (False,)
    batch: int = 4  # windows per forward pass
    source: Source = "crop"  # what SEEDS sees, see data/dense/transforms.py


def predict(model: Segmenter, image: Pixels, inference: Inference) -> npt.NDArray[np.uint8]:
    """Class map uint8 [h, w] of an RGB image: sliding windows with superpixels of their own, averaged over versions."""
    height, width = image.shape[:2]
    total: Tensor | float = 0.0
    for ratio in inference.ratios:
        for flip in inference.flips:
            scores = window_scores(model, _version(image, inference.config, ratio, flip), inference)
            total = total + windows.probabilities(scores, height, width, flip)
    assert isinstance(total, Tensor)
    return total.argmax(0).to(torch.uint8).cpu().numpy()


def _version(image: Pixels, config: Dense, ratio: float, flip: bool) -> Pixels:
    if ratio == 1.0:
        image = eval_resize(image, config)
    else:
        long, short = int(config.short_side * config.aspect * ratio), int(config.short_side * ratio)
        height, width = image.shape[:2]
        image = resize_image(image, scaled_size(height, width, long, short))
    if flip:
        image = np.ascontiguousarray(image[:, ::-1])
    height, width = image.shape[:2]
    size = windows.enlarged_size(height, width, config.window)
    return image if size == (height, width) else resize_image(image, size)


@torch.inference_mode()
def window_scores(model: Segmenter, image: Pixels, inference: Inference) -> Tensor:
    """Mean class scores [classes,h,w] of all windows of an RGB image of at least the window's size."""
    side = inference.config.window
    height, width = image.shape[:2]
    places = windows.positions(height, width, side, inference.stride)
    settings = model.spec.superpixels
    count = seeds_count(side, side, settings.count)
    device = next(model.parameters()).device

    def crops() -> Iterator[Tensor]:
        for begin in range(0, len(places), inference.batch):
            group = [
                np.ascontiguousarray(image[top : top + side, left : left + side])
                for top, left in places[begin : begin + inference.batch]
            ]
            pixels = torch.from_numpy(np.stack(group)).permute(0, 3, 1, 2).to(device)
            maps = torch.from_numpy(
                np.stack([superpixels_for(seen(crop, inference.source), settings) for crop in group])
            ).to(device)
            yield from model.masks(transforms.normalise(pixels), maps, count)

    return windows.merge(crops(), places, height, width)


def evaluate(
    model: nn.Module, split: DenseSplit, inference: Inference, world: World, indices: Sequence[int] | None = None
) -> ConfusionMatrix:
    """Confusion matrix over a split, images shared among the processes; the same result on every process."""
    assert isinstance(model, Segmenter)
    mode = model.training
    model.eval()
    confusion = ConfusionMatrix(len(split.class_names))
    for index in list(range(len(split)) if indices is None else indices)[world.rank :: world.size]:
        image, label = split.read(index)
        confusion.update(predict(model, image, inference), label)
    model.train(mode)
    return together(confusion, world)
