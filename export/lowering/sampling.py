"""Farthest-point sampling as a fixed sequence of operators."""

from __future__ import annotations

import torch
from torch import Tensor

from cast_sdk.export.lowering.ranks import rows

# Chosen tokens move through a row of fixed length, a few at a time. TensorRT-RTX keeps the source of a kernel once for
# every set of buffers it works on, so steps that each leave a result of their own would come as 130 kB each.
_STEPS = 4


def sample_tokens(tokens: Tensor, count: int, present: Tensor | None = None) -> Tensor:
    """The tokens that seed the segments of the next level: int64 [..., count].

    Same choice as `GraphPooling.sample`: the farthest point from all chosen so far, starting at the mean of the
    tokens, with empty tokens moved onto the mean. In mean-centred coordinates the mean is the origin: its distances
    are the squared norms, and empty tokens are zero rows. Each step is a row of one distance matrix, a minimum and an
    arg-max (the lowest index on ties).

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

    nearest = across if across.ndim == 3 else across.unsqueeze(0)
    farthest = nearest.argmax(-1)
    chosen = farthest + torch.zeros(count, dtype=farthest.dtype)
    for step in range(1, count, _STEPS):
        latest: list[Tensor] = []
        for _ in range(step, min(step + _STEPS, count)):
            nearest = torch.minimum(nearest, rows(distances, farthest))
            farthest = nearest.argmax(-1)
            latest.append(farthest)
        chosen = torch.cat([chosen.index_select(1, torch.arange(len(latest), count)), *latest], -1)
    return chosen if across.ndim == 3 else chosen[0]
