"""Random resized crops: drawn as torchvision draws them, resized by Pillow as published models had them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Box = tuple[int, int, int, int]  # left, top, right, bottom
RATIO = (3 / 4, 4 / 3)


def random_box(height: int, width: int, scale: tuple[float, float], generator: np.random.Generator) -> Box:
    """A window of a random part of the area and a random aspect; after ten misfits the largest in the centre."""
    for _ in range(10):
        area = height * width * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resized(image: Any, box: Box, side: int, interpolation: str) -> Any:
    """A window of a PIL image at side x side pixels."""
    from PIL import Image

    return image.crop(box).resize((side, side), getattr(Image.Resampling, interpolation.upper()))
