"""Random resized crops: drawn as torchvision draws them, and resized by it: bilinear within two codes of Pillow."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

Pixels = npt.NDArray[np.uint8]
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


def resized(image: Pixels, box: Box, side: int, interpolation: str) -> Pixels:
    """A window of an image [h, w, 3] at side x side pixels, antialiased."""
    from torchvision.transforms import v2

    left, top, right, bottom = box
    window = torch.from_numpy(np.ascontiguousarray(image[top:bottom, left:right])).permute(2, 0, 1)
    mode = v2.InterpolationMode(interpolation)
    view = v2.functional.resize_image(window, [side, side], interpolation=mode, antialias=True)
    return np.ascontiguousarray(view.permute(1, 2, 0).numpy())


def flipped(image: Pixels) -> Pixels:
    """Left and right exchanged."""
    import cv2

    return cast("Pixels", cv2.flip(image, 1))
