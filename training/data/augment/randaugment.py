"""RandAugment (Cubuk et al., 2020) on uint8 pixels, in timm's variant: its notation and its distribution.

    augment = RandAugment.parse("rand-m9-mstd0.5-inc1", "bicubic")
    view = augment(pixels, generator)

Each layer draws one of fifteen steps and applies it with probability p. A step's level is the magnitude m, with normal
noise of deviation mstd, cut off to 0..mmax, over 10. With `inc1` every step changes more as the level rises.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cast_sdk.arguments import shown
from cast_sdk.errors import RecipeError
from cast_sdk.spec import IMAGENET_MEAN
from cast_sdk.training.data.augment import colours
from cast_sdk.training.data.augment.crops import Pixels
from cast_sdk.training.data.augment.warps import moved_columns, moved_rows, turned

FILL = tuple(round(255 * value) for value in IMAGENET_MEAN)  # what comes in from outside the image

# The parts of the notation: what a number there sets, and what it is.
_PARTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "m": ("magnitude", int),
    "n": ("layers", int),
    "p": ("probability", float),
    "mstd": ("deviation", float),
    "mmax": ("highest", int),
    "inc": ("increasing", lambda text: bool(int(text))),
}


@dataclass(frozen=True)
class RandAugment:
    """Settings of RandAugment; called with an image [h, w, 3] and a generator it gives an augmented one."""

    magnitude: int = 10
    layers: int = 2
    probability: float = 0.5  # of a layer
    deviation: float = 0.0  # of the magnitude; above 100 it is uniform from 0 to `magnitude`
    highest: int = 10
    increasing: bool = False
    interpolation: str = "bicubic"

    @classmethod
    def parse(cls, notation: str, interpolation: str = "bicubic") -> RandAugment:
        """From timm's notation.

        Raises:
            RecipeError: for anything but "rand" and parts m, n, p, mstd, mmax and inc.
        """
        first, *parts = notation.split("-")
        values: dict[str, Any] = {}
        try:
            for part in parts:
                key, number = re.fullmatch(r"([a-z]+)([\d.]+)", part).groups()  # type: ignore[union-attr]
                name, convert = _PARTS[key]
                values[name] = convert(number)
        except (AttributeError, KeyError, ValueError):
            first = ""
        if first != "rand":
            raise RecipeError(
                f"augment.rand_augment is {shown(notation)}, which is not timm's notation of RandAugment.",
                remedy='"rand" and any of m, n, p, mstd, mmax and inc with a number, such as rand-m9-mstd0.5-inc1',
            )
        return cls(**values, interpolation=interpolation)

    def __call__(self, image: Pixels, generator: np.random.Generator) -> Pixels:
        for step, value in self.drawn(generator):
            image = STEPS[step](image, value, self.interpolation)
        return image

    def drawn(self, generator: np.random.Generator) -> list[tuple[str, float]]:
        """The steps for one image, in order, each with its argument (0 where it takes none)."""
        layers = generator.integers(len(_NAMES), size=self.layers)
        return [
            (_NAMES[number], self.argument(_NAMES[number], self._level(generator), generator))
            for number in layers
            if generator.random() < self.probability
        ]

    def _level(self, generator: np.random.Generator) -> float:
        magnitude: float = self.magnitude
        if self.deviation > 100:
            magnitude = generator.uniform(0, magnitude)
        elif self.deviation:
            magnitude = generator.normal(magnitude, self.deviation)
        return max(0.0, min(magnitude, self.highest)) / 10

    def argument(self, step: str, level: float, generator: np.random.Generator) -> float:
        """A step's argument at a level, 0 to 1: degrees, parts of the side, bits, codes or a factor."""
        if step in _REACHES:
            return _either_way(_REACHES[step] * level, generator)
        if step == "Posterize":
            bits = int(4 * level)
            return 4 - bits if self.increasing else bits
        if step == "Solarize":
            threshold = min(256, int(256 * level))
            return 256 - threshold if self.increasing else threshold
        if step == "SolarizeAdd":
            return min(128, int(110 * level))
        if step in _BLENDS:
            return max(0.1, 1 + _either_way(0.9 * level, generator)) if self.increasing else 1.8 * level + 0.1
        return 0


def _either_way(value: float, generator: np.random.Generator) -> float:
    return -value if generator.random() < 0.5 else value


def _moved(by_rows: bool, image: Pixels, start: float, slope: float, interpolation: str) -> Pixels:
    """Rows or columns moved by start + slope * (their place in pixels)."""
    shifts = start + slope * (np.arange(image.shape[0 if by_rows else 1]) + 0.5)
    return (moved_rows if by_rows else moved_columns)(image, shifts, interpolation, FILL)


# What a step does at level 1, either way: degrees, and parts of the side.
_REACHES = {"Rotate": 30.0, "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 0.45, "TranslateY": 0.45}
_BLENDS = ("Color", "Contrast", "Brightness", "Sharpness")

# Each: (image, argument, interpolation) -> image.
STEPS: dict[str, Callable[[Pixels, Any, str], Pixels]] = {
    "AutoContrast": lambda image, _value, _mode: colours.autocontrast(image),
    "Equalize": lambda image, _value, _mode: colours.equalise(image),
    "Invert": lambda image, _value, _mode: colours.invert(image),
    "Posterize": lambda image, bits, _mode: colours.posterise(image, bits),
    "Solarize": lambda image, threshold, _mode: colours.solarise(image, threshold),
    "SolarizeAdd": lambda image, added, _mode: colours.solarise_add(image, added),
    "Color": lambda image, factor, _mode: colours.saturation(image, factor),
    "Contrast": lambda image, factor, _mode: colours.contrast(image, factor),
    "Brightness": lambda image, factor, _mode: colours.brightness(image, factor),
    "Sharpness": lambda image, factor, _mode: colours.sharpness(image, factor),
    "Rotate": lambda image, degrees, mode: turned(image, degrees, mode, FILL),
    "ShearX": lambda image, slope, mode: _moved(True, image, 0, slope, mode),
    "ShearY": lambda image, slope, mode: _moved(False, image, 0, slope, mode),
    "TranslateX": lambda image, part, mode: _moved(True, image, part * image.shape[1], 0, mode),
    "TranslateY": lambda image, part, mode: _moved(False, image, part * image.shape[0], 0, mode),
}
_NAMES = tuple(STEPS)
