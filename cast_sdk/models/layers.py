"""Transformer block, convolutional stems and position embeddings shared by every model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention with a joint qkv projection, outputs ordered (q | k | v) and head-major."""

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N,T,C] -> q, k, v of [N, heads, T, C / heads]."""
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        return q, k, v

    def merge(self, x: Tensor) -> Tensor:
        """[N, heads, T, C / heads] -> projected [N,T,C]."""
        out = self.proj(x.transpose(1, 2).flatten(2))
        return F.dropout(out, self.dropout, self.training)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`bias` is added to the scores, broadcast to [N, heads, T, T]."""
        q, k, v = self.heads(x)
        return self.merge(attend(q, k, v, bias, self.dropout if self.training else 0.0))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        # The bf16 backward of scaled_dot_product_attention on the CPU is about twice as slow as this.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if bias is not None:
            scores = scores + bias.to(scores.dtype)
        weights = F.dropout(scores.softmax(-1), dropout)
        return weights.to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.gelu(self.fc1(x)), self.dropout, self.training)
        return F.dropout(self.fc2(x), self.dropout, self.training)


class DropPath(nn.Module):
    """Stochastic depth per sample: keep with probability 1 - rate and divide by it."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = (keep + torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device)).floor()
        return x / keep * mask.to(x.dtype)


class Block(nn.Module):
    """Pre-norm transformer block: x + DP(Attn(LN(x))), then x + DP(MLP(LN(x)))."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: int = 4,
        eps: float = 1e-6,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        norms_first: bool = False,  # registration order of the published mask decoder; optimiser states follow it
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        if norms_first:
            self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, dropout)
        if not norms_first:
            self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_ratio * dim, dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ConvStem(nn.Module):
    """Four 3x3 convolutions with BatchNorm and ReLU, widths C/8, C/4, C/2, C, then a 1x1 with bias.

    [N,3,H,W] -> [N,H',W',C], channels last. Strides (2, 2, 2, 1) give an 8-pixel patch, (2, 2, 2, 2) a 16-pixel one;
    each stride-2 convolution maps a side n to ceil(n / 2).
    """

    def __init__(self, dim: int, strides: Sequence[int] = (2, 2, 2, 1)) -> None:
        super().__init__()
        widths = [3, dim // 8, dim // 4, dim // 2, dim]
        layers: list[nn.Module] = []
        for width_in, width_out, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [
                nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False),
                nn.BatchNorm2d(width_out),
                nn.ReLU(inplace=True),
            ]
        self.proj = nn.Sequential(*layers, nn.Conv2d(dim, dim, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """Linear embedding of square patches: [N,3,H,W] -> [N,H',W',C]."""

    def __init__(self, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).permute(0, 2, 3, 1)


def numbered(blocks: Sequence[nn.Module], start: int) -> nn.Sequential:
    """A Sequential whose children are named from `start` on: the published stages keep the flat block numbers."""
    return nn.Sequential(OrderedDict((str(start + i), block) for i, block in enumerate(blocks)))


def sincos_positions(grid: int, dim: int, class_row: bool = False) -> Tensor:
    """Fixed 2-D sin-cos embedding of a square grid, [1, grid * grid (+ 1), dim] float32.

    Row-major cells hold [sin(r w), cos(r w), sin(c w), cos(c w)] with w_d = 10000^(-d / (dim / 4)).
    """
    quarter = dim // 4
    omega = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float32) / quarter)
    row, column = torch.meshgrid(torch.arange(grid).float(), torch.arange(grid).float(), indexing="ij")
    rows = row.flatten()[:, None] * omega
    columns = column.flatten()[:, None] * omega
    table = torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=1)
    if class_row:
        table = torch.cat([torch.zeros(1, dim), table])
    return table[None]


def resize_positions(positions: Tensor, grid: int) -> Tensor:
    """Bicubic resize of a square grid of positions [1, g * g, C] to [1, grid * grid, C] (a = -0.75, half-pixel)."""
    side = round(positions.shape[1] ** 0.5)
    planes = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    planes = F.interpolate(planes, size=(grid, grid), mode="bicubic", align_corners=False)
    return planes.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)
