"""From an encoded image to what a model takes: an augmented image and the superpixels of that very view.

The order is the reference's. `source: crop`: geometry, flip, colour -> superpixels on the uint8 view -> normalisation
(done later, on the batch). `source: denormalised` (DeiT): the view is normalised, random erasing follows, and the
superpixels are computed on the de-normalised result cast to uint8, so they see the erased rectangle, values outside
0..255 wrap around, and many codes come out one too low.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD
from cast_sdk.training.data.augment.crops import Box, Pixels
from cast_sdk.training.engine.recipe.settings import Augment

Statistics = tuple[float, float, float]
MeanAndStd = tuple[Statistics, Statistics]


def normalise(images: Tensor, mean: Statistics = IMAGENET_MEAN, std: Statistics = IMAGENET_STD) -> Tensor:
    """uint8 [N,3,H,W] -> float32 with these statistics; float input passes through (it is normalised already)."""
    if images.is_floating_point():
        return images
    # Without waiting for the device, as torch.tensor(..., device=...) does.
    shift, scale = (
        torch.tensor(values).view(1, 3, 1, 1).to(images.device, non_blocking=True) for values in (mean, std)
    )
    return images.float().div_(255).sub_(shift).div_(scale)


def denormalised_uint8(image: Tensor, mean: Statistics = IMAGENET_MEAN, std: Statistics = IMAGENET_STD) -> Pixels:
    """DeiT's way back from a normalised float [3,H,W] to uint8 [H,W,3]: float64, truncation, wrap-around."""
    pixels = image.permute(1, 2, 0).double().numpy() * np.array(std) + np.array(mean)
    return np.ascontiguousarray((pixels * 255).astype(np.int64).astype(np.uint8))


@functools.cache
def _tables(mean: Statistics, std: Statistics) -> npt.NDArray[np.float32]:
    """`normalise` for each code of each channel: float32 [3, 256]."""
    codes = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, -1)
    return normalise(codes, mean, std)[0, :, 0].numpy()


@functools.cache
def _round_trip(there: MeanAndStd, back: MeanAndStd) -> Pixels:
    """DeiT's way there and back for each code of each channel: uint8 [1, 256, 3]."""
    return denormalised_uint8(torch.from_numpy(_tables(*there))[:, None], *back)


def pixels_of(image: Tensor) -> Pixels:
    """uint8 [3,H,W] -> uint8 [H,W,3], contiguous; without a copy where the channels lie together already."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def planes(view: Pixels) -> Tensor:
    """uint8 [H,W,3] -> uint8 [3,H,W], contiguous."""
    channels = np.empty((3, *view.shape[:2]), np.uint8)
    cv2.split(view, list(channels))
    return torch.from_numpy(channels)


def normalised(view: Pixels, mean: Statistics = IMAGENET_MEAN, std: Statistics = IMAGENET_STD) -> Tensor:
    """`normalise` of uint8 [H,W,3], from a table: float32 [3,H,W], contiguous."""
    image = np.empty((3, *view.shape[:2]), np.float32)
    for plane, table, out in zip(cv2.split(view), _tables(mean, std), image, strict=True):
        cv2.LUT(plane, table, out)
    return torch.from_numpy(image)


def denormalised(view: Pixels, image: Tensor, erased: Box | None, there: MeanAndStd, back: MeanAndStd) -> Pixels:
    """`denormalised_uint8` of `image`, most of it from a table.

    Args:
        view: uint8 [H,W,3]; normalised with the mean and standard deviation `there` it gives `image` outside `erased`.
        image: float32 [3,H,W].
        erased: where `image` is something else; None: nowhere.
        there, back: mean and standard deviation of both ways.
    """
    pixels = cast("Pixels", cv2.LUT(view, _round_trip(there, back)))
    if erased is not None:
        left, top, right, bottom = erased
        pixels[top:bottom, left:right] = denormalised_uint8(image[:, top:bottom, left:right], *back)
    return pixels


def eval_geometry(config: Augment) -> Callable[[Any], Any]:
    """Short side to `eval_resize` and a centre crop, or the whole image stretched to the model's size."""
    from torchvision.transforms import v2

    mode = v2.InterpolationMode(config.interpolation)
    side = config.image_size
    if config.eval_resize == 0:
        return v2.Resize((side, side), interpolation=mode, antialias=True)
    return v2.Compose([v2.Resize(config.eval_resize, interpolation=mode, antialias=True), v2.CenterCrop(side)])
