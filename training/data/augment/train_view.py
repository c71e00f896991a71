"""The random view of supervised and probe training: resolution, crop, flip and RandAugment, all on bytes."""

from __future__ import annotations

import numpy as np

from cast_sdk.training.data.augment.crops import Pixels, flipped, random_box, resized
from cast_sdk.training.data.augment.randaugment import RandAugment
from cast_sdk.training.data.augment.resolution import as_thumbnail, other_resolution
from cast_sdk.training.engine.recipe.settings import Augment


class TrainView:
    """Called with an image [h, w, 3] and a generator it gives uint8 [side, side, 3].

    Raises:
        RecipeError: when `rand_augment` of the recipe is not RandAugment's notation.
    """

    def __init__(self, augment: Augment) -> None:
        self.augment = augment
        notation = augment.rand_augment
        self.rand_augment = RandAugment.parse(notation, augment.interpolation) if notation else None

    def __call__(self, image: Pixels, generator: np.random.Generator) -> Pixels:
        augment = self.augment
        if augment.thumbnail:
            image = as_thumbnail(image, augment.thumbnail)
        if augment.resolution and generator.random() < augment.resolution:
            image = other_resolution(image, generator)
        box = random_box(image.shape[0], image.shape[1], augment.scale, generator)
        view = resized(image, box, augment.image_size, augment.interpolation)
        if generator.random() < augment.flip:
            view = flipped(view)
        return self.rand_augment(view, generator) if self.rand_augment else view
