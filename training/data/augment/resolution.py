"""Photographs as thumbnails, and other resolutions: neither may tell which data set an image comes from.

Where photographs of some classes are mixed with thumbnails of others, a model finds that every image that is sharp, or
has no traces of JPEG, is one of the photographs' classes, and names accordingly whatever it sees later.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from cast_sdk.training.data.augment import colours
from cast_sdk.training.data.augment.crops import Pixels

QUALITY = 75  # of JPEG, as Tiny-ImageNet's files have it
_SIZE = (0.55, 1.0)  # of a side: below 1 the blocks of JPEG go
_SIGMA, _AMOUNT = (0.6, 1.2), (0.3, 2.0)  # of the unsharp mask: pixels, times what a blur takes away


def as_thumbnail(image: Pixels, side: int) -> Pixels:
    """The whole image at `side` x `side` pixels, through JPEG; unchanged where it is no larger already.

    Args:
        image: uint8 [h, w, 3], red first.
        side: pixels.
    """
    if max(image.shape[:2]) <= side:
        return image
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    decoded = cast("Pixels", cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(decoded[:, :, ::-1])


def other_resolution(image: Pixels, generator: np.random.Generator) -> Pixels:
    """The image at a random smaller size, and every second time with an unsharp mask: uint8 [h', w', 3]."""
    share = generator.uniform(*_SIZE)
    size = max(1, round(image.shape[1] * share)), max(1, round(image.shape[0] * share))
    small = cast("Pixels", cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    if generator.random() < 0.5:
        blurred, amount = colours.blur(small, generator.uniform(*_SIGMA)), generator.uniform(*_AMOUNT)
        small = cast("Pixels", cv2.addWeighted(small, 1 + amount, blurred, -amount, 0))
    return small
