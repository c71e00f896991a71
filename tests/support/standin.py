"""A Runtime whose network is a few lines of NumPy: real stages and results without a model file."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from cast_sdk.artifact import ExportInfo
from cast_sdk.runtime.preprocess import Prepared
from cast_sdk.runtime.runtime import Runtime
from cast_sdk.runtime.tracking.film import Film
from cast_sdk.spec import ModelSpec

SIDE, GRID = 96, 12


class StandInBackend:
    """Superpixel s belongs to segment s // 4, s // 12, s // 36 and s // 72; the class follows the mean colour.

    `wait` seconds pass without using the CPU, as with a network on another device. `flat`: no segments.
    """

    device = "cpu"

    def __init__(self, wait: float = 0.0, *, flat: bool = False) -> None:
        self.wait, self.closed, self.runs, self.flat = wait, False, 0, flat
        self.spec = ModelSpec(
            name="stand_in",
            family="cast",
            embed_dim=3,
            depths=(1, 1, 1, 1),
            num_heads=1,
            clusters=(36, 12, 4, 2),
            num_classes=3,
            image_size=SIDE,
            position_grid=GRID,
            class_names=("blue", "green", "red"),
        )
        if flat:
            self.spec = dataclasses.replace(self.spec, family="vit", clusters=())
        outputs = ("embedding", "logits", "level1", "level2", "level3", "level4")
        self.info = ExportInfo("fp32", 1, SIDE, SIDE, GRID * GRID, outputs)

    def run(self, image, superpixels):
        if self.wait:
            time.sleep(self.wait)
        self.runs += 1
        mean = image.reshape(len(image), -1, 3).mean(1)[:, ::-1].astype(np.float32) / 255
        outputs = {"embedding": mean, "logits": mean * 10}
        for level, size in enumerate((4, 12, 36, 72), 1):
            outputs[f"level{level}"] = np.tile(np.arange(GRID * GRID, dtype=np.int32) // size, (len(image), 1))
        return outputs

    def close(self):
        self.closed = True


class StandIn(Runtime):
    """The stages of Runtime with a regular grid in place of SEEDS."""

    def __init__(self, wait: float = 0.0, *, flat: bool = False) -> None:
        super().__init__(StandInBackend(wait, flat=flat))

    def add_superpixels(self, prepared: Prepared, film: Film | None = None) -> Prepared:
        cell = np.arange(SIDE) // (SIDE // GRID)
        if film is not None:
            film.look(prepared)
        prepared.superpixels = (cell[:, None] * GRID + cell[None]).astype(np.int32)
        prepared.timing["superpixels"] = 0.0
        return prepared
