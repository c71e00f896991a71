"""Weight arithmetic that takes work out of the graph. Each function is exact up to float32 rounding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Affine = tuple[Tensor, Tensor]  # weight [out, in, ...], bias [out]


def batchnorm_affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel, float64, of a BatchNorm in evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return scale, shift


def fold_batchnorm_after(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Affine:
    """A convolution or linear layer followed by BatchNorm, as one layer."""
    scale, shift = batchnorm_affine(norm)
    folded = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
    offset = shift if bias is None else shift + scale * bias.double()
    return folded.float(), offset.float()


def fold_batchnorm_before(norm: nn.BatchNorm1d, weight: Tensor, bias: Tensor) -> Affine:
    """BatchNorm followed by a linear layer, as one layer: W (s x + t) + b = (W s) x + (W t + b)."""
    scale, shift = batchnorm_affine(norm)
    return (weight.double() * scale).float(), (bias.double() + weight.double() @ shift).float()


def fold_normalisation(weight: Tensor, std: Sequence[float]) -> Tensor:
    """First convolution for pixels 0..255 from which 255 x mean has been subtracted.

    The subtraction stays in the graph: folded into a bias it would be wrong at the zero-padded border.
    """
    return (weight.double() / (255 * torch.tensor(std, dtype=torch.float64)).view(1, -1, 1, 1)).float()


def fold_query_scale(weight: Tensor, bias: Tensor, num_heads: int) -> Affine:
    """qkv projection whose first third is multiplied by (C / heads) ** -0.5."""
    dim = weight.shape[1]
    scale = torch.ones(3 * dim, dtype=torch.float64)
    scale[:dim] = (dim // num_heads) ** -0.5
    return (weight.double() * scale[:, None]).float(), (bias.double() * scale).float()


def separable_positions(table: Tensor) -> tuple[Tensor, Tensor] | None:
    """Row part [h, C/2] and column part [w, C/2] of a position map [h,w,C] whose first half depends on the row alone
    and whose second half depends on the column alone, as sin-cos maps do; None for any other map."""
    half = table.shape[-1] // 2
    rows, columns = table[:, 0, :half], table[0, :, half:]
    if torch.equal(table[..., :half], rows[:, None].expand(-1, table.shape[1], -1)) and torch.equal(
        table[..., half:], columns[None].expand(table.shape[0], -1, -1)
    ):
        return rows.contiguous(), columns.contiguous()
    return None
