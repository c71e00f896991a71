"""Augmentation of dense segmentation (the recipe of mmsegmentation 0.14): pure functions of arrays and a generator.

Images are uint8 [h, w, 3] RGB, class maps uint8 [h, w] with 255 for pixels that do not count.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cast_sdk.spec import IMAGENET_MEAN
from cast_sdk.superpixels import seeds_count, superpixels_for
from cast_sdk.training.data.dense.base import IGNORE, DenseSplit
from cast_sdk.training.data.sampler import Key
from cast_sdk.training.engine.recipe.settings import Dense, Recipe, Source

Pixels = npt.NDArray[np.uint8]
_MEAN = tuple(int(255 * value) for value in IMAGENET_MEAN)  # what normalises to (nearly) zero


def scaled_size(height: int, width: int, long: float, short: float) -> tuple[int, int]:
    """The largest (height, width) of the same aspect whose sides stay within `long` and `short`."""
    factor = min(long / max(height, width), short / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Bilinear, to (height, width)."""
    return cast(Pixels, cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR))


def resize_label(label: Pixels, size: tuple[int, int]) -> Pixels:
    """Nearest neighbour, to (height, width)."""
    return cast(Pixels, cv2.resize(label, (size[1], size[0]), interpolation=cv2.INTER_NEAREST))


def eval_resize(image: Pixels, config: Dense) -> Pixels:
    """The image at the size that windows move over."""
    height, width = image.shape[:2]
    size = scaled_size(height, width, config.short_side * config.aspect, config.short_side)
    return resize_image(image, size)


def random_scale(image: Pixels, label: Pixels, config: Dense, generator: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Both resized to the configured size times a random factor."""
    factor = generator.uniform(*config.scale)
    long, short = int(config.short_side * config.aspect * factor), int(config.short_side * factor)
    height, width = image.shape[:2]
    size = scaled_size(height, width, long, short)
    return resize_image(image, size), resize_label(label, size)


def random_crop(
    image: Pixels, label: Pixels, side: int, cap: float, generator: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """A random window of at most side x side pixels, drawn up to eleven times until no class covers `cap` of it."""
    height, width = label.shape

    def window() -> tuple[slice, slice]:
        top = int(generator.integers(max(height - side, 0) + 1))
        left = int(generator.integers(max(width - side, 0) + 1))
        return slice(top, top + side), slice(left, left + side)

    area = window()
    for _ in range(10 if cap < 1 else 0):
        counts = np.bincount(label[area].ravel(), minlength=256)[:IGNORE]
        if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < cap:
            break
        area = window()
    return image[area], label[area]


def photometric(image: Pixels, generator: np.random.Generator) -> Pixels:
    """Brightness, contrast (before or after the colour steps), saturation and hue, each with probability 1/2."""

    def linear(values: npt.NDArray[Any], gain: float, offset: float) -> Pixels:
        return np.clip(values.astype(np.float32) * gain + offset, 0, 255).astype(np.uint8)

    def chance() -> bool:
        return bool(generator.integers(2))

    if chance():
        image = linear(image, 1, generator.uniform(-32, 32))
    contrast_first = chance()
    if contrast_first and chance():
        image = linear(image, generator.uniform(0.5, 1.5), 0)
    if chance():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = linear(hsv[..., 1], generator.uniform(0.5, 1.5), 0)
        image = cast(Pixels, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    if chance():
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + generator.integers(-18, 18)) % 180  # OpenCV's hue: half degrees
        image = cast(Pixels, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))
    if not contrast_first and chance():
        image = linear(image, generator.uniform(0.5, 1.5), 0)
    return image


def pad(image: Pixels, label: Pixels, side: int) -> tuple[Pixels, Pixels]:
    """Filled at the bottom and right to side x side: the image with the mean colour, the labels with 255."""
    height, width = label.shape
    if height >= side and width >= side:
        return image, label
    padded = np.full((max(height, side), max(width, side), 3), _MEAN, np.uint8)
    classes = np.full(padded.shape[:2], IGNORE, np.uint8)
    padded[:height, :width], classes[:height, :width] = image, label
    return padded, classes


@functools.cache
def segmenter_codes() -> Pixels:
    """What the Segmenter's SEEDS sees for each code of each channel: uint8 [256, 3].

    The published program normalises with statistics of two decimals in float32, de-normalises and cuts off the
    fraction: 20, 2 and 14 codes come out one too low.
    """
    mean, std = np.array([123.68, 116.28, 103.53]), np.array([58.4, 57.12, 57.38])
    codes = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, axis=1)
    normalised = ((codes - mean).astype(np.float32) * (1 / std)).astype(np.float32)
    back = normalised * std.astype(np.float32) + mean.astype(np.float32)
    return back.astype(np.uint8)


def seen(image: Pixels, source: Source) -> Pixels:
    """The picture that SEEDS gets for an image [h, w, 3]: itself ("crop"), or what the Segmenter makes of it."""
    if source == "crop":
        return image
    return cast(Pixels, cv2.LUT(image, segmenter_codes()[None]))


class DenseViews(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Training items: crop uint8 [3,H,W], its superpixels int32 [H,W] and class map uint8 [H,W].

    Every item is a function of (seed, epoch, position).
    """

    def __init__(self, split: DenseSplit, recipe: Recipe) -> None:
        self.split, self.config, self.flip, self.seed = split, recipe.dense, recipe.augment.flip, recipe.train.seed
        self.settings, self.source = recipe.superpixels.settings(), recipe.superpixels.source

    def __len__(self) -> int:
        return len(self.split)

    def count(self) -> int:
        """Superpixels S of an item."""
        return seeds_count(self.config.crop, self.config.crop, self.settings.count)

    def augmented(self, image: Pixels, label: Pixels, generator: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Scale, crop, flip, colours, padding."""
        image, label = random_scale(image, label, self.config, generator)
        image, label = random_crop(image, label, self.config.crop, self.config.category_cap, generator)
        if generator.random() < self.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        if self.config.photometric:
            image = photometric(np.ascontiguousarray(image), generator)
        return pad(image, label, self.config.crop)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, Tensor]:
        index, epoch, position = key
        generator = np.random.default_rng((self.seed, epoch, position))
        image, label = (np.ascontiguousarray(part) for part in self.augmented(*self.split.read(index), generator))
        superpixels = superpixels_for(seen(image, self.source), self.settings)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(superpixels), torch.from_numpy(label)
