"""Batches of images without labels, with a teacher's scores for all its classes, those of the data among them.

`DATA/others-*.tar` has the images; their labels, the teacher's likeliest of the data's classes, are not used.
`DATA/others-teacher.npy` is float16 [images, all classes]: first the data's classes in their order, then the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import default_collate

from cast_sdk.errors import InputError
from cast_sdk.training.data.arrays import read_array
from cast_sdk.training.data.dataset import Images, LabelledViews, OnBadImage
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.engine.recipe.settings import Recipe

SPLIT, FILE = "others", "others-teacher.npy"
_REMEDY = "prepare_data.py photographs --others N; or --set teacher.others=0"


@dataclass
class OtherBatch:
    images: Tensor  # [N,3,H,W], as labelled images come
    superpixels: Tensor  # int32 [N,H,W]
    scores: Tensor  # float32 [N, all classes]


class OtherViews:
    """Random views, made as those of labelled images.

    Batches are drawn from torch's random state, which the loop sets for every step.

    Args:
        data: folder of the data set.
        classes: how many the data has.
        on_bad: what to do about an unreadable image.

    Raises:
        InputError: when the images or their scores are missing, or do not belong together.
    """

    def __init__(self, data: Path, recipe: Recipe, classes: int, on_bad: OnBadImage = "error") -> None:
        if not any(data.glob(f"{SPLIT}-*.tar")):
            raise InputError(f"{data} has no images without labels ({SPLIT}-*.tar).", remedy=_REMEDY)
        source = open_source(data, SPLIT)
        scores = read_array(data / FILE, "no teacher's scores", _REMEDY)
        if scores.ndim != 2 or len(scores) != len(source) or scores.shape[1] <= classes:
            raise InputError(
                f"The teacher's scores were not made for these {len(source)} images, or for no more than the data's "
                f"{classes} classes.",
                found=f"{data / FILE} of shape {list(scores.shape)}",
                remedy=_REMEDY,
            )
        self.further = scores.shape[1] - classes
        self.views = LabelledViews(Images(source, on_bad), recipe, train=True, scores=scores)

    def set_count(self, superpixels: int) -> None:
        self.views.set_count(superpixels)

    def batch(self, size: int) -> OtherBatch:
        """`size` random views."""
        chosen = torch.randint(len(self.views), (size,)).tolist()
        positions = torch.randint(2**31, (size,)).tolist()  # seed the views
        items = [self.views[index, 0, position] for index, position in zip(chosen, positions, strict=True)]
        images, superpixels, _, scores = default_collate(items)
        return OtherBatch(images, superpixels, scores)
