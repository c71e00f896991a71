"""Sliding windows over images larger than the model's input, as pure functions on tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from cast_sdk.errors import InputError


def anchors(size: int, window: int, stride: int) -> list[int]:
    """First pixels of the windows along an axis: multiples of the stride below size - window, and size - window.

    Raises:
        InputError: for an axis shorter than the window or a stride under one pixel.
    """
    if size < window or stride < 1:
        raise InputError(
            f"No windows of {window} pixels with stride {stride} along {size} pixels.",
            remedy="enlarge the image to the window, and move by at least one pixel",
        )
    return [*range(0, size - window, stride), size - window]


def positions(height: int, width: int, window: int, stride: int) -> list[tuple[int, int]]:
    """(top, left) of all windows, row by row."""
    return [(top, left) for top in anchors(height, window, stride) for left in anchors(width, window, stride)]


def merge(crops: Iterable[Tensor], places: Iterable[tuple[int, int]], height: int, width: int) -> Tensor:
    """Mean of overlapping window scores: crops [C,window,window] at (top, left) -> [C,height,width]."""
    total: Tensor | None = None
    cover = torch.zeros(1)
    for crop, (top, left) in zip(crops, places, strict=True):
        if total is None:
            total = crop.new_zeros(crop.shape[0], height, width)
            cover = crop.new_zeros(1, height, width)
        area = (slice(None), slice(top, top + crop.shape[1]), slice(left, left + crop.shape[2]))
        total[area] += crop
        cover[area] += 1
    if total is None:
        raise InputError("There are no windows to merge.")
    return total / cover


def probabilities(scores: Tensor, height: int, width: int, flipped: bool = False) -> Tensor:
    """Merged scores [C,h,w] resized bilinearly to the original image, un-flipped, then softmax: [C,height,width]."""
    scores = F.interpolate(scores[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    return (scores.flip(-1) if flipped else scores).softmax(0)


def enlarged_size(height: int, width: int, window: int) -> tuple[int, int]:
    """Size of an image whose short side is at least the window."""
    short = min(height, width)
    if short >= window:
        return height, width
    if height <= width:
        return window, int(width * window / height)
    return int(height * window / width), window
