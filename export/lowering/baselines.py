"""Lowered baselines: ViT and the superpixel ViT with token merging."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cast_sdk.export.lowering.blocks import LoweredBlock, LoweredLinear, LoweredNorm, LoweredStem, lower_head
from cast_sdk.export.lowering.ranks import beside, entries, rows
from cast_sdk.export.lowering.tokens import Tokens
from cast_sdk.models.baselines import MergingBlock, Tome, Vit

if TYPE_CHECKING:
    from cast_sdk.export.lowering.options import GraphOptions


class LoweredVit(nn.Module):
    """Class-token embedding [..., 1, C] of a ViT."""

    class_token: Tensor
    positions: Tensor

    def __init__(self, model: Vit, options: GraphOptions) -> None:
        super().__init__()
        spec, table = model.spec, model.pos_embed.detach()[0]
        self.stem = LoweredStem(model.patch_embed, spec.mean, spec.std, options.dtype, options.squeeze)
        self.projection = None
        if self.stem.projection is not None:
            self.projection = LoweredLinear(*self.stem.projection, options.dtype)
        self.register_buffer("class_token", model.cls_token.detach()[0] + table[:1])
        self.register_buffer("positions", table[1:].contiguous())
        self.blocks = nn.Sequential(*[LoweredBlock(block, options.dtype) for block in model.blocks])
        self.norm = LoweredNorm(model.norm)
        self.head = lower_head(model.head)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.stem(image)
        if self.projection is not None:
            x = self.projection(x)
        x = x.float() + self.positions
        x = self.blocks(beside(x, before=self.class_token))
        return class_outputs(self.norm(x[..., :1, :]), self.head)


class LoweredTome(nn.Module):
    """Class-token embedding [..., 1, C] of the superpixel ViT whose blocks merge tokens."""

    def __init__(self, model: Tome, options: GraphOptions) -> None:
        super().__init__()
        self.tokens = Tokens(model, options)
        self.blocks = nn.ModuleList(LoweredBlock(block, options.dtype) for block in model.blocks)
        self.norm = LoweredNorm(model.norm)
        self.head = lower_head(model.head)

    def forward(self, image: Tensor, superpixels: Tensor) -> dict[str, Tensor]:
        x, _ = self.tokens(image, superpixels)
        size = x[..., :1] * 0 + 1
        for number, block in enumerate(self.blocks):
            assert isinstance(block, LoweredBlock)
            bias = size.log().transpose(-2, -1).unsqueeze(-3) if number else None  # all sizes are 1 at first
            x, keys = block.attend(x, bias)
            merged = min(MergingBlock.merges, (int(x.shape[-2]) - 1) // 2)
            x, size = merge(x, size, keys.float().mean(-3), merged)
            x = block.mix(x)
        return class_outputs(self.norm(x[..., :1, :]), self.head)


def merge(x: Tensor, size: Tensor, metric: Tensor, merged: int) -> tuple[Tensor, Tensor]:
    """`cast_sdk.models.baselines.merge_tokens` without scatter: moved tokens are added by a one-hot product.

    x [..., T, C], size [..., T, 1], metric [..., T, D] -> [..., T - r, C], [..., T - r, 1].
    """
    metric = metric / metric.norm(dim=-1, keepdim=True)
    scores = metric[..., ::2, :] @ metric[..., 1::2, :].transpose(-2, -1)
    best, partner = scores.max(-1)
    count = int(best.shape[-1])
    best = torch.cat([best[..., :1] * 0 - torch.inf, best[..., 1:]], -1)  # the class token never moves
    source = best.topk(merged, dim=-1).indices
    kept = (-best).topk(count - merged, dim=-1).indices.topk(count - merged, dim=-1, largest=False).values
    target = entries(partner, source)
    ids = torch.arange(int(scores.shape[-1]), device=target.device)[:, None]
    spread = (target.unsqueeze(-2) == ids).float()

    def combine(values: Tensor) -> Tensor:
        even, odd = values[..., ::2, :], values[..., 1::2, :]
        return torch.cat([rows(even, kept), odd + spread @ rows(even, source)], -2)

    sizes = combine(size)
    return combine(x * size) / sizes, sizes


def class_outputs(embedding: Tensor, head: nn.Module | None) -> dict[str, Tensor]:
    """Outputs of a model that reads its class token [..., 1, C]."""
    outputs = {"embedding": embedding}
    if head is not None:
        outputs["logits"] = head(embedding)
    return outputs
