"""Batches for the loss on the levels: crops of photographs with the nested regions of `prepare_data.py regions`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cast_sdk.superpixels import seeds_count, superpixels_for
from cast_sdk.training.data.region_file import FILE, read_regions
from cast_sdk.training.engine.recipe.settings import Recipe


@dataclass
class RegionBatch:
    """`shares[l]` [N,S,R]: which part of each superpixel lies in each region of level l + 1."""

    images: Tensor  # uint8 [N,3,H,W]
    superpixels: Tensor  # int32 [N,H,W]
    shares: list[Tensor]

    def __len__(self) -> int:
        return len(self.images)


class RegionViews:
    """Random crops of `DATA/regions.npz`, see `region_file.py`.

    Batches are drawn from torch's random state, which the loop sets for every step.

    Raises:
        InputError: when the file is missing or holds something else.
    """

    def __init__(self, data: Path, recipe: Recipe) -> None:
        from torchvision.transforms import v2

        self.images, self.maps = read_regions(data / FILE)
        augment = recipe.augment
        self.settings = recipe.superpixels.settings()
        self.geometry = v2.Compose(
            [
                v2.RandomResizedCrop(augment.image_size, scale=recipe.levels.scale, antialias=True),
                v2.RandomHorizontalFlip(augment.flip),
            ]
        )

    def set_count(self, superpixels: int) -> None:
        self.settings = dataclasses.replace(self.settings, count=superpixels)

    def batch(self, size: int) -> RegionBatch:
        """`size` random crops."""
        from torchvision import tv_tensors

        images, superpixels, maps = [], [], []
        for index in torch.randint(len(self.images), (size,)).tolist():
            image = tv_tensors.Image(torch.from_numpy(self.images[index]).permute(2, 0, 1))
            view, regions = self.geometry(image, tv_tensors.Mask(torch.from_numpy(self.maps[index])))
            rgb = np.ascontiguousarray(view.permute(1, 2, 0).numpy())
            images.append(view.as_subclass(Tensor))
            superpixels.append(torch.from_numpy(superpixels_for(rgb, self.settings)))
            maps.append(regions.as_subclass(Tensor))
        labels = torch.stack(superpixels)
        count = seeds_count(labels.shape[1], labels.shape[2], self.settings.count)
        stacked = torch.stack(maps)
        return RegionBatch(
            torch.stack(images), labels, [region_shares(labels, stacked[:, level], count) for level in range(4)]
        )


def region_shares(superpixels: Tensor, regions: Tensor, count: int) -> Tensor:
    """Share of each superpixel's pixels in each region: float [N,S,R], zero rows for absent superpixels.

    Args:
        superpixels: integer [N,H,W], labels below `count`.
        regions: uint8 [N,H,W].
        count: S.
    """
    width = int(regions.max()) + 1
    flat = superpixels.flatten(1).long() * width + regions.flatten(1).long()
    table = torch.zeros(len(flat), count * width)
    table = table.scatter_add_(1, flat, torch.ones(flat.shape)).view(len(flat), count, width)
    return table / table.sum(-1, keepdim=True).clamp(min=1)
