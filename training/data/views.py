"""MoCo-v3's data: two augmented views of one image, each with the superpixels of that very view.

View 1: crop, colour jitter, grey, blur, flip. View 2: crop, jitter, grey, (rarely) blur, solarise, flip. Superpixels
come last, on the finished uint8 view, so they see all of it; normalisation follows on the batch. PIL does the pixels,
as in the reference: its crop and blur are what the published models were trained on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cast_sdk.superpixels import seeds_count, superpixels_for
from cast_sdk.training.data import transforms
from cast_sdk.training.data.dataset import Images
from cast_sdk.training.data.sampler import Key
from cast_sdk.training.engine.recipe import Augment, Moco, Recipe

Pair = tuple[Tensor, Tensor]


def view_geometry(augment: Augment, moco: Moco, view: int) -> Callable[[Any], Any]:
    """The random transform of view 0 or 1, from a PIL image to a PIL image."""
    from torchvision.transforms import v2

    jitter = v2.ColorJitter(*moco.jitter)
    blur = v2.Lambda(functools.partial(gaussian_blur, radius=moco.blur_radius))  # picklable, for worker processes
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                augment.image_size, scale=augment.scale, interpolation=v2.InterpolationMode(augment.interpolation)
            ),
            v2.RandomApply([jitter], moco.jitter_probability),
            v2.RandomGrayscale(moco.grey),
            v2.RandomApply([blur], moco.blur[view]),
            *([v2.RandomSolarize(128, moco.solarise[view])] if moco.solarise[view] else []),
            v2.RandomHorizontalFlip(augment.flip),
        ]
    )


def gaussian_blur(image: Any, radius: tuple[float, float]) -> Any:
    """PIL's Gaussian blur with a radius drawn uniformly from [low, high]."""
    from PIL import ImageFilter

    low, high = radius
    return image.filter(ImageFilter.GaussianBlur(low + (high - low) * float(torch.rand(()))))


class TwoViews(Dataset[Any]):
    """Items ((view 1, view 2), (superpixels 1, superpixels 2)): uint8 [3,H,W] and int32 [H,W].

    Models without superpixels get empty maps. Like every item here, one depends on (seed, epoch, position) alone.
    """

    def __init__(self, images: Images, recipe: Recipe, superpixels: bool = True) -> None:
        self.images, self.seed = images, recipe.train.seed
        self.settings = recipe.superpixels.settings() if superpixels else None
        self.geometry = [view_geometry(recipe.augment, recipe.moco, view) for view in (0, 1)]

    def __len__(self) -> int:
        return len(self.images)

    def count(self, superpixels: Tensor) -> int | None:
        """S of a batch of label maps [N,H,W] from this data set."""
        if self.settings is None:
            return None
        return seeds_count(superpixels.shape[-2], superpixels.shape[-1], self.settings.count)

    def __getitem__(self, key: Key) -> tuple[Pair, Pair]:
        from PIL import Image

        index, epoch, position = key
        pixels, _ = self.images.image(index)
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        with transforms.seeded(self.seed, epoch, position):
            views = [np.array(transform(image)) for transform in self.geometry]
        maps = [self._superpixels(view) for view in views]
        first, second = (torch.from_numpy(view).permute(2, 0, 1).contiguous() for view in views)
        return (first, second), (maps[0], maps[1])

    def _superpixels(self, view: transforms.Pixels) -> Tensor:
        if self.settings is None:
            return torch.empty(0, dtype=torch.int32)
        return torch.from_numpy(superpixels_for(view, self.settings))
