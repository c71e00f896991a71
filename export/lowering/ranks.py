"""The few operations that differ when the batch is folded away.

At batch 1 the lowered graph works on matrices, so that every linear layer becomes one `Gemm` and every choice of rows
one `Gather`; for other batches the same code runs with one leading axis. Sizes other than the batch are plain integers
here, so no shape is computed inside the graph.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def reshaped(x: Tensor, rank: int, *shape: int) -> Tensor:
    """x of `rank` axes, or of one more with the batch in front, to `shape`, the batch kept."""
    return x.reshape(shape) if x.ndim == rank else x.reshape(-1, *shape)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """[..., T, C] -> [..., T, out]; a `Gemm` at any batch."""
    if x.ndim == 2:
        return F.linear(x, weight, bias)
    tokens, width = int(x.shape[-2]), int(x.shape[-1])
    return F.linear(x.reshape(-1, width), weight, bias).reshape(-1, tokens, int(weight.shape[0]))


def rows(x: Tensor, index: Tensor) -> Tensor:
    """x [..., T, C], index [..., K] -> [..., K, C]."""
    if x.ndim == 2:
        return F.embedding(index, x)
    zeros = torch.zeros(int(x.shape[-1]), dtype=torch.int64, device=index.device)
    return x.gather(1, index.unsqueeze(-1) + zeros)


def entries(x: Tensor, index: Tensor) -> Tensor:
    """x [..., T], index [..., K] -> [..., K]."""
    return x.index_select(0, index) if x.ndim == 1 else x.gather(1, index)


def beside(x: Tensor, *, before: Tensor | None = None, after: Tensor | None = None) -> Tensor:
    """Constant rows [n, C] put before or after the tokens x [..., T, C], for every image of the batch."""
    parts = [part for part in (before, x, after) if part is not None]
    if x.ndim == 3:
        batch = x[..., :1, :1] * 0  # broadcasts a constant without asking for the size of the batch
        parts = [part if part is x else part + batch for part in parts]
    return torch.cat(parts, -2)


def split_heads(x: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """qkv [..., T, 3C] -> q, k, v of [..., heads, T, C / heads]."""
    tokens, width = int(x.shape[-2]), int(x.shape[-1]) // 3
    q, k, v = (
        reshaped(part, 2, tokens, num_heads, width // num_heads).transpose(-3, -2) for part in x.split(width, -1)
    )
    return q, k, v


def merge_heads(x: Tensor) -> Tensor:
    """[..., heads, T, D] -> [..., T, heads * D]."""
    return reshaped(x.transpose(-3, -2), 3, int(x.shape[-2]), int(x.shape[-3]) * int(x.shape[-1]))


def being_exported() -> bool:
    """Whether a graph is made of the module, by torch.onnx or by torch.export, and it is not run."""
    return torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting()
