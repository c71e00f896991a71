"""Decoded images in memory as one tensor, which reaches a worker process as one file and not as one for each image."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Kept:
    """Images by index, uint8 [3,H,W] of any sizes; an image that could not be read has no elements.

    Args:
        images: uint8 [3,H,W] each, or empty ones.
    """

    def __init__(self, images: Iterable[Tensor]) -> None:
        rows = [image.permute(1, 2, 0) if image.numel() else image.view(0, 0, 1) for image in images]
        self.sizes = [(row.shape[0], row.shape[1]) for row in rows]
        lengths = torch.tensor([0, *(row.numel() for row in rows)])
        self.starts = lengths.cumsum(0)
        self.pixels = torch.empty(int(self.starts[-1]), dtype=torch.uint8)
        for number in range(len(rows)):
            begin, end = self.starts[number], self.starts[number + 1]
            self.pixels[begin:end] = rows[number].reshape(-1)
            rows[number] = rows[number].new_empty(0)  # so that no image is held twice

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Tensor:
        height, width = self.sizes[index]
        if not height:
            return self.pixels.new_empty(0)
        pixels = self.pixels[self.starts[index] : self.starts[index + 1]]
        return pixels.view(height, width, 3).permute(2, 0, 1)
