"""MoCo-v3's data: two augmented views of one image, each with the superpixels of that very view.

View 1: crop, colour jitter, grey, blur, flip. View 2: crop, jitter, grey, (rarely) blur, solarise, flip. Superpixels
come last, on the finished uint8 view, so they see all of it; normalisation follows on the batch. The crop is
torchvision's, colours and blur are OpenCV's (colours.py), all on bytes and with the reference's distribution.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cast_sdk.superpixels import seeds_count, superpixels_for
from cast_sdk.training.data.augment import colours
from cast_sdk.training.data.augment.crops import Pixels, flipped, random_box, resized
from cast_sdk.training.data.dataset import Images
from cast_sdk.training.data.sampler import Key
from cast_sdk.training.data.transforms import pixels_of, planes
from cast_sdk.training.engine.recipe.settings import Augment, Moco, Recipe

Pair = tuple[Tensor, Tensor]


def augmented(image: Pixels, augment: Augment, moco: Moco, view: int, generator: np.random.Generator) -> Pixels:
    """View 0 or 1 of an image [h, w, 3]: uint8 [side, side, 3]."""
    box = random_box(image.shape[0], image.shape[1], augment.scale, generator)
    pixels = resized(image, box, augment.image_size, augment.interpolation)
    if generator.random() < moco.jitter_probability:
        pixels = jittered(pixels, moco.jitter, generator)
    if generator.random() < moco.grey:
        pixels = colours.grey(pixels)
    if generator.random() < moco.blur[view]:
        pixels = colours.blur(pixels, generator.uniform(*moco.blur_radius))
    if generator.random() < moco.solarise[view]:
        pixels = colours.solarise(pixels)
    return flipped(pixels) if generator.random() < augment.flip else pixels


def jittered(pixels: Pixels, strength: tuple[float, float, float, float], generator: np.random.Generator) -> Pixels:
    """Brightness, contrast, saturation and hue in a random order, as torchvision's ColorJitter draws them."""
    steps = (colours.brightness, colours.contrast, colours.saturation, colours.hue)
    values = [generator.uniform(max(0.0, 1 - width), 1 + width) for width in strength[:3]]
    values.append(generator.uniform(-strength[3], strength[3]))
    for number in generator.permutation(4):
        pixels = steps[number](pixels, values[number])
    return pixels


class TwoViews(Dataset[Any]):
    """Items ((view 1, view 2), (superpixels 1, superpixels 2)): uint8 [3,H,W] and int32 [H,W].

    Models without superpixels get empty maps. Like every item here, one depends on (seed, epoch, position) alone.
    """

    def __init__(self, images: Images, recipe: Recipe, superpixels: bool = True) -> None:
        self.images, self.seed = images, recipe.train.seed
        self.settings = recipe.superpixels.settings() if superpixels else None
        self.augment, self.moco = recipe.augment, recipe.moco

    def __len__(self) -> int:
        return len(self.images)

    def count(self, superpixels: Tensor) -> int | None:
        """S of a batch of label maps [N,H,W] from this data set."""
        if self.settings is None:
            return None
        return seeds_count(superpixels.shape[-2], superpixels.shape[-1], self.settings.count)

    def __getitem__(self, key: Key) -> tuple[Pair, Pair]:
        index, epoch, position = key
        image = pixels_of(self.images.image(index)[0])
        generator = np.random.default_rng((self.seed, epoch, position))
        first, second = (augmented(image, self.augment, self.moco, view, generator) for view in (0, 1))
        return (planes(first), planes(second)), (self._superpixels(first), self._superpixels(second))

    def _superpixels(self, view: Pixels) -> Tensor:
        if self.settings is None:
            return torch.empty(0, dtype=torch.int32)
        return torch.from_numpy(superpixels_for(view, self.settings))
