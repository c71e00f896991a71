"""The few operations that differ when the batch is folded away.

At batch 1 the lowered graph works on matrices, so that every linear layer becomes one `Gemm` and every row choice one
`Gather`; for other batches the same code runs with one leading axis.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[..., T, C] -> [..., T, out]; a `Gemm` at any batch."""
    if x.ndim == 2:
        return F.linear(x, weight, bias)
    return F.linear(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])


def row_gather(x: Tensor) -> Callable[[Tensor], Tensor]:
    """A function from an index [..., K] to the rows [..., K, C] of x [..., T, C]."""
    if x.ndim == 2:
        return lambda index: F.embedding(index, x)
    flat = x.flatten(0, 1)
    offset = torch.arange(x.shape[0])[:, None] * x.shape[1]
    return lambda index: F.embedding(index + offset, flat)


def rows(x: Tensor, index: Tensor) -> Tensor:
    """x [..., T, C], index [..., K] -> [..., K, C]."""
    return row_gather(x)(index)


def entries(x: Tensor, index: Tensor) -> Tensor:
    """x [..., T], index [..., K] -> [..., K]."""
    return x[index] if x.ndim == 1 else x.gather(1, index)


def split_heads(x: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """[..., T, parts * C] -> `parts` tensors [..., heads, T, C / heads]."""
    x = x.unflatten(-1, (parts, num_heads, -1))
    order = (1, 2, 0, 3) if x.ndim == 4 else (2, 0, 3, 1, 4)
    return x.permute(*order).unbind(0)


def merge_heads(x: Tensor) -> Tensor:
    """[..., heads, T, D] -> [..., T, heads * D]."""
    return x.transpose(-3, -2).flatten(-2)
