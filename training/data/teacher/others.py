"""Batches of images without labels, with a teacher's scores for all its classes, those of the data among them.

`DATA/others-*.tar` has the images; their labels, the teacher's likeliest of the data's classes, are not used.
`DATA/others-teacher.npy` is float16 [images, all classes]: first the data's classes in their order, then the others.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cast_sdk.errors import InputError
from cast_sdk.superpixels import superpixels_for
from cast_sdk.training.data.arrays import read_array
from cast_sdk.training.data.augment.train_view import TrainView
from cast_sdk.training.data.dataset import decode
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.data.transforms import pixels_of, planes
from cast_sdk.training.engine.recipe.settings import Recipe

SPLIT, FILE = "others", "others-teacher.npy"
_REMEDY = "prepare_data.py photographs --others N; or --set teacher.others=0"


@dataclass
class OtherBatch:
    images: Tensor  # uint8 [N,3,H,W]
    superpixels: Tensor  # int32 [N,H,W]
    scores: Tensor  # float32 [N, all classes]


class OtherViews:
    """Random views, as labelled images have them.

    Batches are drawn from torch's random state, which the loop sets for every step.

    Args:
        data: folder of the data set.
        classes: how many the data has.

    Raises:
        InputError: when the images or their scores are missing, or do not belong together.
    """

    def __init__(self, data: Path, recipe: Recipe, classes: int) -> None:
        if not any(data.glob(f"{SPLIT}-*.tar")):
            raise InputError(f"{data} has no images without labels ({SPLIT}-*.tar).", remedy=_REMEDY)
        self.source = open_source(data, SPLIT)
        self.scores = read_array(data / FILE, "no teacher's scores", _REMEDY)
        if self.scores.ndim != 2 or len(self.scores) != len(self.source) or self.scores.shape[1] <= classes:
            raise InputError(
                f"The teacher's scores were not made for these {len(self.source)} images, or for no more than the "
                f"data's {classes} classes.",
                found=f"{data / FILE} of shape {list(self.scores.shape)}",
                remedy=_REMEDY,
            )
        self.further = self.scores.shape[1] - classes
        self.settings = recipe.superpixels.settings()
        self.view = TrainView(recipe.augment)

    def set_count(self, superpixels: int) -> None:
        self.settings = dataclasses.replace(self.settings, count=superpixels)

    def batch(self, size: int) -> OtherBatch:
        """`size` random views."""
        images, superpixels = [], []
        chosen = torch.randint(len(self.source), (size,)).tolist()
        generator = np.random.default_rng(int(torch.randint(2**31, (1,))))
        for index in chosen:
            image = decode(self.source.read(index), self.source.names[index])
            view = self.view(pixels_of(image), generator)
            images.append(planes(view))
            superpixels.append(torch.from_numpy(superpixels_for(view, self.settings)))
        scores = torch.from_numpy(self.scores[chosen].astype(np.float32))
        return OtherBatch(torch.stack(images), torch.stack(superpixels), scores)
