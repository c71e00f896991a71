"""Unequal classes: images of rare classes are drawn more often."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cast_sdk.training.data.sampler import EpochSampler


def draw_weights(labels: npt.NDArray[np.integer], power: float) -> npt.NDArray[np.float64]:
    """How often each image is drawn in relation to the others: float64 [images], with the mean 1.

    An image of a class of n images weighs n^-power, so power 1 draws all classes equally often.
    """
    weights = np.bincount(labels)[labels].astype(np.float64) ** -power
    return np.asarray(weights / weights.mean(), np.float64)


class BalancedSampler(EpochSampler):
    """Epochs of as many entries as there are images, drawn by weights.

    The whole part of an image's weight is in every epoch and the rest by chance, so that no image repeats by chance
    alone. A pure function of (seed, epoch), like its base.
    """

    def __init__(self, weights: npt.NDArray[np.float64], batch: int, **options: Any) -> None:
        """
        Args:
            weights: of `draw_weights`.
            batch: images per process and step.
            options: of `EpochSampler`.
        """
        super().__init__(len(weights), batch, **options)
        self.weights = weights

    def order(self) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        # Systematic sampling, images of one weight together and shuffled: each occurs floor(w) or ceil(w) times, and
        # those of one weight together as often as they should.
        shuffled = torch.randperm(self.length, generator=generator).numpy()
        shuffled = shuffled[np.argsort(self.weights[shuffled], kind="stable")]
        ends = np.cumsum(self.weights[shuffled])
        offset = float(torch.rand((), generator=generator, dtype=torch.float64))
        points = (np.arange(self.length) + offset) * (ends[-1] / self.length)
        chosen = shuffled[np.minimum(np.searchsorted(ends, points, side="right"), self.length - 1)]
        return [int(chosen[place]) for place in torch.randperm(self.length, generator=generator)]
