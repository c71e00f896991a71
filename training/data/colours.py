"""MoCo's colour steps on uint8 pixels, as Pillow and torchvision define them, computed by OpenCV.

Each is a pure function of an image [h, w, 3] RGB and its parameter. Brightness, contrast and solarising give Pillow's
values; saturation and hue are rounded otherwise, and the blur is the Gaussian that Pillow approximates.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
_CODES = np.arange(256, dtype=np.float32)
_SOLARISED = np.where(_CODES < 128, _CODES, 255 - _CODES).astype(np.uint8)


def _blended(image: Pixels, base: float, factor: float) -> Pixels:
    """base + factor * (value - base), cut off to whole numbers as Pillow does."""
    table = np.clip(base + np.float32(factor) * (_CODES - base), 0, 255).astype(np.uint8)
    return cast("Pixels", cv2.LUT(image, table))


def brightness(image: Pixels, factor: float) -> Pixels:
    """Values times `factor`."""
    return _blended(image, 0, factor)


def contrast(image: Pixels, factor: float) -> Pixels:
    """Distance from the mean grey times `factor`."""
    return _blended(image, int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5), factor)


def saturation(image: Pixels, factor: float) -> Pixels:
    """Distance of each pixel from its own grey times `factor`."""
    return cast("Pixels", cv2.addWeighted(image, factor, grey(image), 1 - factor, -0.5))


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


def solarise(image: Pixels) -> Pixels:
    """Values from 128 on are inverted."""
    return cast("Pixels", cv2.LUT(image, _SOLARISED))
