"""Random erasing as timm draws it: one rectangle of a normalised image becomes noise."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from cast_sdk.training.data.augment.crops import Box

AREA = (0.02, 1 / 3)  # of the image
RATIO = (0.3, 1 / 0.3)  # height to width


def erased_box(height: int, width: int, probability: float, generator: np.random.Generator) -> Box | None:
    """The rectangle to erase; None where the draw says so, or after ten that are as high or as wide as the image."""
    if generator.random() >= probability:
        return None
    for _ in range(10):
        area = height * width * generator.uniform(*AREA)
        ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w < width and h < height:
            top, left = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
            return left, top, left + w, top + h
    return None


def erase(image: npt.NDArray[np.float32], box: Box, generator: np.random.Generator) -> None:
    """Fill the rectangle of a normalised image [3, h, w] with standard normal values, in place."""
    left, top, right, bottom = box
    image[:, top:bottom, left:right] = generator.standard_normal((3, bottom - top, right - left), np.float32)
