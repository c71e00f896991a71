"""Farthest-point sampling in one kernel launch per pooling, for GPUs.

The plain loops of `cast_sdk.models.sampling` launch three small kernels per point, hundreds per image batch. Here one
program per image keeps the running minimum in registers and picks all points. It makes the same comparisons on the same
numbers, ties included, so the indices are those of the plain loops.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 8192  # numbers of a tile of points that a program holds at a time


@triton.jit
def _farthest(  # type: ignore[no-untyped-def]  # Triton reads annotations as types of its own
    source,
    picks,
    points,
    channels,
    count,
    image_stride,
    BLOCK_POINTS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    FROM_MATRIX: tl.constexpr,
):
    image = tl.program_id(0)
    source += image.to(tl.int64) * image_stride
    rows = tl.arange(0, BLOCK_POINTS)
    valid = rows < points
    distance_type: tl.constexpr = tl.float32 if FROM_MATRIX else tl.float64
    nearest = tl.full([BLOCK_POINTS], float("inf"), distance_type)
    chosen = 0
    for k in range(count):
        tl.store(picks + image * count + k, chosen)
        if FROM_MATRIX:
            distance = tl.load(source + chosen * points + rows, mask=valid, other=0.0)
        else:
            distance = tl.zeros([BLOCK_POINTS], tl.float64)
            for start in range(0, channels, BLOCK_CHANNELS):
                columns = start + tl.arange(0, BLOCK_CHANNELS)
                inside = columns < channels
                centre = tl.load(source + chosen * channels + columns, mask=inside, other=0.0).to(tl.float64)
                block = tl.load(
                    source + rows[:, None] * channels + columns[None, :],
                    mask=valid[:, None] & inside[None, :],
                    other=0.0,
                ).to(tl.float64)
                difference = block - centre[None, :]
                distance += tl.sum(difference * difference, 1)
        nearest = tl.minimum(nearest, distance)
        chosen = tl.argmax(tl.where(valid, nearest, float("-inf")), 0)


def by_differences(points: Tensor, count: int) -> Tensor:
    """`count` indices per image from points [N,P,C], distances in float64: int64 [N,count]."""
    return _launch(points, count, from_matrix=False)


def by_matrix(distances: Tensor, count: int) -> Tensor:
    """`count` indices per image from float32 squared distances [N,P,P]: int64 [N,count]."""
    return _launch(distances, count, from_matrix=True)


@torch.library.custom_op("cast_sdk::farthest_points", mutates_args=())
def _launch(source: Tensor, count: int, from_matrix: bool) -> Tensor:
    source = source.contiguous()
    images, points, channels = source.shape
    picks = torch.empty(images, count, dtype=torch.long, device=source.device)
    block = triton.next_power_of_2(points)
    width = min(triton.next_power_of_2(channels), max(TILE // block, 1))
    with torch.cuda.device_of(source):  # the launch goes to the current device, which may be another GPU
        _farthest[(images,)](
            source, picks, points, channels, count, points * channels, block, width, from_matrix, num_warps=8
        )
    return picks


@_launch.register_fake
def _(source: Tensor, count: int, from_matrix: bool) -> Tensor:
    """What compilers and fake tensors see of it."""
    return torch.empty(source.shape[0], count, dtype=torch.long, device=source.device)
