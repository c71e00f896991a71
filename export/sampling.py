"""Farthest-point sampling as a fixed sequence of operators."""

from __future__ import annotations

import torch
from torch import Tensor

from cast_sdk.export.ranks import rows


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

    nearest = across
    chosen = [nearest.argmax(-1)]
    while len(chosen) < count:
        nearest = torch.minimum(nearest, rows(distances, chosen[-1]))
        chosen.append(nearest.argmax(-1))
    return torch.cat(chosen, -1)
