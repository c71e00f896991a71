"""Photographs as thumbnails, and sharper thumbnails: sharpness must not tell which data set an image comes from.

Where photographs of some classes are mixed with thumbnails of others, a model finds that every sharp image is one of
the photographs' classes, and names accordingly whatever it sees later.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from cast_sdk.training.data.augment.crops import Pixels

QUALITY = 75  # of JPEG, as Tiny-ImageNet's files have it
_SIGMA, _AMOUNT = (0.6, 1.2), (0.3, 2.0)  # pixels; times what a blur takes away


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
    return cast("Pixels", np.ascontiguousarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR)[:, :, ::-1]))


def sharpened(image: Pixels, generator: np.random.Generator) -> Pixels:
    """An unsharp mask of random width and strength: uint8 [h, w, 3]."""
    sigma, amount = generator.uniform(*_SIGMA), generator.uniform(*_AMOUNT)
    blurred = cv2.GaussianBlur(image, (0, 0), sigma)
    return cast("Pixels", cv2.addWeighted(image, 1 + amount, blurred, -amount, 0))
