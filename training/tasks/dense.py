"""What Segmenter fine-tuning does with tensors: starting weights, the loss, and prediction over sliding windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cast_sdk.errors import RecipeError
from cast_sdk.models import create_model, load_model
from cast_sdk.models.dense import Segmenter
from cast_sdk.superpixels import seeds_count, superpixels_for
from cast_sdk.training.data import transforms
from cast_sdk.training.data.dense.base import DenseSplit
from cast_sdk.training.data.dense.transforms import Pixels, eval_resize, resize_image, scaled_size
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.recipe import Dense, Recipe
from cast_sdk.training.metrics.semantic import ConfusionMatrix
from cast_sdk.training.tasks import windows

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def build_segmenter(recipe: Recipe, split: DenseSplit) -> Segmenter:
    """The recipe's Segmenter for the classes of a data set, its encoder from `model.init` if that is given."""
    options = {
        "num_classes": len(split.class_names),
        "class_names": split.class_names,
        "palette": split.palette,
        "image_size": recipe.dense.crop,
        "superpixels": transforms.settings(recipe.superpixels),
        **recipe.model.options,
    }
    torch.manual_seed(recipe.train.seed)
    model = create_model(recipe.model.name, sampler=recipe.model.sampler, **options)
    if not isinstance(model, Segmenter):
        raise RecipeError(
            "Dense segmentation trains a Segmenter.",
            found=recipe.model.name,
            remedy="--set model.name=segmenter_cast_small",
        )
    if recipe.model.init:
        load_start(model, recipe.model.init)
    if recipe.model.dropout is not None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.model.dropout
    # The encoder's norm and classifier do not reach the output; DDP wants a gradient for all the rest.
    model.encoder.norm.requires_grad_(False)
    model.encoder.head.requires_grad_(False)
    return model.train()


def load_start(model: Segmenter, path: str) -> None:
    """Fill a Segmenter from a checkpoint.

    From a Segmenter for the same number of classes: everything. From a classification model: the encoder, while block
    fusion and decoder stay random.

    Args:
        path: checkpoint of a Segmenter, cast_deit or cast model of the same sizes, or "bundled". The fixed positions
            of a `cast` become the start of learned ones.

    Raises:
        RecipeError: when sizes differ.
        CheckpointError: when the file cannot be opened.
    """
    source = load_model(_bundled() if path == "bundled" else path)
    prefix = "encoder."
    theirs = source.state_dict()
    if isinstance(source, Segmenter):
        if source.spec.num_classes != model.spec.num_classes:
            theirs = {key: value for key, value in theirs.items() if key.startswith(prefix)}
    else:
        if "pe_token" in theirs:
            theirs["pos_embed"] = torch.cat([theirs.pop("pe_token"), theirs["pos_embed"]], 1)
        theirs = {prefix + key: value for key, value in theirs.items()}
    ours = model.state_dict()
    fresh = ("encoder.head.", "encoder.block_fusion.", "decoder.")
    wanted = [key for key in ours if not key.startswith(fresh) or key in theirs]
    wanted = [key for key in wanted if not key.startswith("encoder.head.")]
    misfit = [key for key in wanted if key not in theirs or theirs[key].shape != ours[key].shape]
    if misfit:
        key = misfit[0]
        there = tuple(theirs[key].shape) if key in theirs else "missing"
        raise RecipeError(
            "model.init must hold an encoder of the recipe's sizes.",
            found=f"{path}: {len(misfit)} of {len(wanted)} tensors, first {key}: {there} for {tuple(ours[key].shape)}",
            remedy="set model.options (embed_dim, depths, num_heads, position_grid) to those of the checkpoint",
        )
    model.load_state_dict({**ours, **{key: theirs[key] for key in wanted}})


def _bundled() -> Path:
    import cast_sdk

    path = Path(cast_sdk.__file__).parent / "bundled" / "cast_tiny.safetensors"
    if not path.is_file():
        raise RecipeError("model.init=bundled needs the bundled weights.", found=f"no {path}")
    return path


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


def predict(model: Segmenter, image: Pixels, how: Inference) -> npt.NDArray[np.uint8]:
    """Class map uint8 [h, w] of an RGB image: sliding windows with superpixels of their own, averaged over versions."""
    height, width = image.shape[:2]
    total: Tensor | float = 0.0
    for ratio in how.ratios:
        for flip in how.flips:
            scores = window_scores(model, _version(image, how.config, ratio, flip), how)
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
def window_scores(model: Segmenter, image: Pixels, how: Inference) -> Tensor:
    """Mean class scores [classes,h,w] of all windows of an RGB image of at least the window's size."""
    side = how.config.window
    height, width = image.shape[:2]
    places = windows.positions(height, width, side, how.stride)
    settings = model.spec.superpixels
    count = seeds_count(side, side, settings.count)
    device = next(model.parameters()).device

    def crops() -> Iterator[Tensor]:
        for begin in range(0, len(places), how.batch):
            group = [
                np.ascontiguousarray(image[top : top + side, left : left + side])
                for top, left in places[begin : begin + how.batch]
            ]
            pixels = torch.from_numpy(np.stack(group)).permute(0, 3, 1, 2).to(device)
            maps = torch.from_numpy(np.stack([superpixels_for(crop, settings) for crop in group])).to(device)
            yield from model.masks(transforms.normalise(pixels), maps, count)

    return windows.merge(crops(), places, height, width)


def evaluate(
    model: nn.Module, split: DenseSplit, how: Inference, world: World, indices: Sequence[int] | None = None
) -> ConfusionMatrix:
    """Confusion matrix over a split, images shared among the processes; the same result on every process."""
    assert isinstance(model, Segmenter)
    mode = model.training
    model.eval()
    confusion = ConfusionMatrix(len(split.class_names))
    for index in list(range(len(split)) if indices is None else indices)[world.rank :: world.size]:
        image, label = split.read(index)
        confusion.update(predict(model, image, how), label)
    model.train(mode)
    sums = torch.tensor([*confusion.matrix.ravel().tolist(), confusion.images], dtype=torch.float64)
    sums = world.sum(sums.to(world.device)).cpu()
    confusion.matrix[:] = sums[:-1].long().numpy().reshape(confusion.matrix.shape)
    confusion.images = int(sums[-1])
    return confusion
