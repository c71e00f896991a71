"""Colour steps of augmentation on uint8 pixels, as Pillow and torchvision define them, computed by OpenCV.

Each is a pure function of an image [h, w, 3] RGB and its parameter. Saturation, contrast and sharpness are within one
code of Pillow's, hue is rounded otherwise, and the blur is the Gaussian that Pillow approximates; the others give
Pillow's values.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from cast_sdk.training.data.augment.crops import Pixels

_CODES = np.arange(256, dtype=np.float32)
_WHOLE = np.arange(256)
_SMOOTH = (np.ones((3, 3), np.float32) + np.diag([0, 4, 0]).astype(np.float32)) / 13  # Pillow's
CUT_OFF = -0.4999  # added before rounding it makes cutting off, as Pillow does


def _looked_up(image: Pixels, table: npt.NDArray[np.generic]) -> Pixels:
    """Each code's entry in a table [256], or [256, 3] of one column a channel."""
    codes = np.clip(table, 0, 255).astype(np.uint8)
    return cast("Pixels", cv2.LUT(image, codes if codes.ndim == 1 else codes[None]))


def _blended(image: Pixels, base: float, factor: float) -> Pixels:
    """base + factor * (value - base), cut off to whole numbers as Pillow does."""
    return _looked_up(image, base + np.float32(factor) * (_CODES - base))


def brightness(image: Pixels, factor: float) -> Pixels:
    """Values times `factor`."""
    return _blended(image, 0, factor)


def contrast(image: Pixels, factor: float) -> Pixels:
    """Distance from the mean grey times `factor`."""
    return _blended(image, int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5), factor)


def saturation(image: Pixels, factor: float) -> Pixels:
    """Distance of each pixel from its own grey times `factor`."""
    return cast("Pixels", cv2.addWeighted(image, factor, grey(image), 1 - factor, CUT_OFF))


def sharpness(image: Pixels, factor: float) -> Pixels:
    """Distance of each pixel from the smoothed image times `factor`; the outermost pixels stay."""
    sharp = cv2.addWeighted(image, factor, cv2.filter2D(image, -1, _SMOOTH), 1 - factor, CUT_OFF)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        sharp[edge] = image[edge]
    return cast("Pixels", sharp)


def hue(image: Pixels, shift: float) -> Pixels:
    """Hues turned by `shift` of the circle, -0.5..0.5."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(shift * 255) % 256)
    return cast("Pixels", cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def grey(image: Pixels) -> Pixels:
    """Three equal channels."""
    return cast("Pixels", cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))


def blur(image: Pixels, radius: float) -> Pixels:
    """Gaussian blur with this standard deviation in pixels."""
    return cast("Pixels", cv2.GaussianBlur(image, (0, 0), radius, borderType=cv2.BORDER_REPLICATE))


def invert(image: Pixels) -> Pixels:
    """255 less each value."""
    return cast("Pixels", cv2.bitwise_not(image))


def solarise(image: Pixels, threshold: int = 128) -> Pixels:
    """Values from `threshold` on are inverted."""
    return _looked_up(image, np.where(threshold > _WHOLE, _WHOLE, 255 - _WHOLE))


def solarise_add(image: Pixels, added: int, threshold: int = 128) -> Pixels:
    """Values below `threshold` are raised by `added`."""
    return _looked_up(image, np.where(threshold > _WHOLE, _WHOLE + added, _WHOLE))


def posterise(image: Pixels, bits: int) -> Pixels:
    """The highest `bits` of each value, 0 to 8; 0 gives black."""
    return _looked_up(image, _WHOLE & (256 - (1 << (8 - bits))))


def autocontrast(image: Pixels) -> Pixels:
    """Each channel stretched from its darkest and brightest value to 0 and 255."""
    table = np.stack([_WHOLE] * 3, 1)
    for channel, plane in enumerate(cv2.split(image)):
        low, high, _, _ = cv2.minMaxLoc(plane)
        if high > low:
            scale = 255.0 / (high - low)
            table[:, channel] = np.trunc(_WHOLE * scale - low * scale)
    return _looked_up(image, table)


def equalise(image: Pixels) -> Pixels:
    """Each channel with as even a histogram as a table of codes can give; the brightest value is not counted."""
    table = np.stack([_WHOLE] * 3, 1)
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        present = counts.nonzero()[0]
        step = int(counts.sum() - counts[present[-1]]) // 255
        if len(present) > 1 and step:
            table[:, channel] = (step // 2 + np.cumsum(counts) - counts) // step
    return _looked_up(image, table)
