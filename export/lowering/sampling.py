"""Farthest-point sampling as a fixed sequence of operators, or as one kernel where torch itself runs it on a GPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cast_sdk.export.lowering.ranks import being_exported, rows
from cast_sdk.models.sampling import fused_kernels

# Chosen tokens move through a row of fixed length, a few at a time. TensorRT-RTX keeps the source of a kernel once for
# every set of buffers it works on, so steps that each leave a result of their own would come as 130 kB each.
_STEPS = 4


def sample_tokens(tokens: Tensor, count: int, present: Tensor | None = None) -> Tensor:
    """The tokens that seed the segments of the next level: int64 [..., count].

    Same choice as `GraphPooling.sample`: the farthest point from all chosen so far, starting at the mean of the
    tokens, with empty tokens moved onto the mean. In mean-centred coordinates the mean is the origin: its distances
    are the squared norms, and empty tokens are zero rows. Each step is a row of one distance matrix, a minimum and an
    arg-max (the lowest index on ties). Where torch runs this on a GPU and has Triton, one kernel does all steps.

    Args:
        tokens: float [..., T, C]; distances are computed in float32.
        count: tokens to choose. With fewer distinct tokens the choice repeats the first one.
        present: float32 [..., T, 1], 0 for empty tokens.
    """
    tokens = tokens.float()
    if present is None:
        centred = tokens - tokens.mean(-2, keepdim=True)
    else:
        mean = (tokens * present).sum(-2, keepdim=True) / present.sum(-2, keepdim=True).clamp(min=1)
        centred = (tokens - mean) * present
    norms = (centred * centred).sum(-1, keepdim=True)
    across = norms.transpose(-2, -1)
    distances = norms + (across - (2 * centred) @ centred.transpose(-2, -1))
    # A program that leaves torch takes the operators: nobody else knows the kernel.
    kernels = fused_kernels() if tokens.is_cuda and not being_exported() else None
    if kernels is not None:
        return _in_one_kernel(kernels.by_matrix, norms, distances, count)

    nearest = across if across.ndim == 3 else across.unsqueeze(0)
    farthest = nearest.argmax(-1)
    chosen = farthest + torch.zeros(count, dtype=farthest.dtype, device=farthest.device)
    for step in range(1, count, _STEPS):
        latest: list[Tensor] = []
        for _ in range(step, min(step + _STEPS, count)):
            nearest = torch.minimum(nearest, rows(distances, farthest))
            farthest = nearest.argmax(-1)
            latest.append(farthest)
        left = torch.arange(len(latest), count, device=farthest.device)
        chosen = torch.cat([chosen.index_select(1, left), *latest], -1)
    return chosen if across.ndim == 3 else chosen[0]


def _in_one_kernel(by_matrix: Any, norms: Tensor, distances: Tensor, count: int) -> Tensor:
    """The same choice by a kernel that starts at point 0 of a distance matrix: the origin is put before the tokens.

    Args:
        by_matrix: float32 [N, P, P] and a number of points to their indices int64 [N, points].
        norms: float32 [..., T, 1]. distances: float32 [..., T, T].
    """
    origin = F.pad(norms, (0, 0, 1, 0))  # [..., 1 + T, 1]
    matrix = torch.cat([origin, torch.cat([norms.transpose(-2, -1), distances], -2)], -1)
    batched = matrix if matrix.ndim == 3 else matrix.unsqueeze(0)
    # With fewer distinct tokens the kernel comes back to the origin, where the steps above take the first token.
    chosen = (by_matrix(batched, count + 1)[:, 1:] - 1).clamp(min=0)
    return chosen if matrix.ndim == 3 else chosen[0]
