"""The baselines CAST is compared with: plain and convolutional ViT, and a superpixel ViT with token merging."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from cast_sdk.models.base import Model
from cast_sdk.models.cast import CastOutput, initialise_moco, make_head, size_error, token_count, with_logits
from cast_sdk.models.layers import Attention, Block, ConvStem, PatchEmbed, attend, sincos_positions
from cast_sdk.models.superpixel_ops import nearest_labels, segment_mean
from cast_sdk.spec import ModelSpec


class Vit(Model):
    """ViT with fixed sin-cos positions; linear 16-pixel patches (vit) or a convolutional stem (vit_conv)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        dim = spec.embed_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        table = sincos_positions(spec.position_grid, dim, class_row=True)
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.patch_embed: nn.Module
        if spec.family == "vit":
            self.patch_embed = PatchEmbed(dim, spec.patch_size)
        else:
            self.patch_embed = ConvStem(dim, (2, 2, 2, 2))
        self.blocks = nn.Sequential(*[Block(dim, spec.num_heads) for _ in range(spec.depths[0])])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = make_head(spec)

    def patch_tokens(self, image: Tensor) -> Tensor:
        """Class and patch tokens after the last block, without the final norm: [N, 1 + P, C]."""
        check_size(self.spec, image)
        x = self.patch_embed(image).flatten(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.blocks(x)

    def forward(self, image: Tensor, superpixels: Tensor | None = None, num_superpixels: object = None) -> CastOutput:
        """image: normalised float [N,3,H,W]; superpixels are accepted for a common signature and not used."""
        return self.forward_head(self.forward_features(image))

    def forward_features(self, image: Tensor, superpixels: object = None, num_superpixels: object = None) -> CastOutput:
        return CastOutput(self.norm(self.patch_tokens(image)[:, 0]))

    def forward_head(self, features: CastOutput) -> CastOutput:
        return with_logits(features, self.head)

    def initialise(self) -> Vit:
        initialise_moco(self)
        if isinstance(self.patch_embed, PatchEmbed):
            bound = math.sqrt(6.0 / (3 * self.spec.patch_size**2 + self.spec.embed_dim))
            nn.init.uniform_(self.patch_embed.proj.weight, -bound, bound)
            nn.init.zeros_(self.patch_embed.proj.bias)  # type: ignore[arg-type]
        return self


def match_tokens(metric: Tensor, merged: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bipartite matching of token merging.

    Args:
        metric: [N,T,D]; even positions (class token first) look for a partner among the odd ones.
        merged: number r of even tokens to merge.

    Returns:
        Index into the even tokens of the kept ones [N,Ta-r] (ascending) and of the merged ones [N,r], and the odd
        partner of each merged one [N,r]. No gradient.
    """
    with torch.no_grad():
        metric = metric / metric.norm(dim=-1, keepdim=True)
        scores = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)
        scores[:, 0] = -torch.inf
        best, partner = scores.max(-1)
        order = best.argsort(dim=-1, descending=True)
        source, kept = order[:, :merged], order[:, merged:].sort(1).values
        return kept, source, partner.gather(1, source)


def merge_tokens(x: Tensor, size: Tensor, metric: Tensor, merged: int) -> tuple[Tensor, Tensor]:
    """Merge r token pairs by their size-weighted mean: x [N,T,C], size [N,T,1] -> [N,T-r,C], [N,T-r,1]."""
    kept, source, target = match_tokens(metric, merged)

    def combine(values: Tensor) -> Tensor:
        even, odd = values[:, ::2], values[:, 1::2]
        width = values.shape[-1]
        moved = even.gather(1, source[..., None].expand(-1, -1, width))
        odd = odd.scatter_add(1, target[..., None].expand(-1, -1, width), moved)
        return torch.cat([even.gather(1, kept[..., None].expand(-1, -1, width)), odd], 1)

    sizes = combine(size)
    return combine(x * size) / sizes, sizes


class MergingBlock(Block):
    """Transformer block that merges 16 tokens between attention and MLP (proportional attention)."""

    merges = 16

    def run(self, x: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """x [N,T,C] and token sizes [N,T,1] -> merged x and sizes."""
        attention: Attention = self.attn
        q, k, v = attention.heads(self.norm1(x))
        bias = size.log()[:, None, None, :, 0].to(q.dtype)
        x = x + attention.merge(attend(q, k, v, bias))
        merged = min(self.merges, (x.shape[1] - 1) // 2)
        x, size = merge_tokens(x, size, k.mean(1), merged)
        return x + self.mlp(self.norm2(x)), size


class Tome(Model):
    """Superpixel tokens as in CAST, then a plain ViT whose blocks merge tokens."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        dim = spec.embed_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(sincos_positions(spec.position_grid, dim), requires_grad=False)
        self.pe_token = nn.Parameter(torch.zeros(1, 1, dim), requires_grad=False)
        self.patch_embed = ConvStem(dim)
        self.blocks = nn.ModuleList([MergingBlock(dim, spec.num_heads) for _ in range(spec.depths[0])])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = make_head(spec)

    def forward(
        self, image: Tensor, superpixels: Tensor, num_superpixels: int | Literal["batch"] | None = None
    ) -> CastOutput:
        """image: normalised float [N,3,H,W]; superpixels: integer [N,H,W]; see `Cast.forward`."""
        return self.forward_head(self.forward_features(image, superpixels, num_superpixels))

    def forward_features(
        self, image: Tensor, superpixels: Tensor, num_superpixels: int | Literal["batch"] | None = None
    ) -> CastOutput:
        check_size(self.spec, image)
        features = self.patch_embed(image)
        n, h, w, c = features.shape
        if num_superpixels == "batch":
            superpixels = nearest_labels(superpixels, h, w)
        count = token_count(self.spec, superpixels, num_superpixels, self.training)
        labels = nearest_labels(superpixels, h, w)
        x = segment_mean(features, labels, count) + segment_mean(self.pos_embed.view(1, h, w, c), labels, count)
        x = torch.cat([(self.cls_token + self.pe_token).expand(n, -1, -1), x], 1)
        size = torch.ones_like(x[..., :1])
        for block in self.blocks:
            assert isinstance(block, MergingBlock)
            x, size = block.run(x, size)
        return CastOutput(self.norm(x)[:, 0])

    def forward_head(self, features: CastOutput) -> CastOutput:
        return with_logits(features, self.head)

    def initialise(self) -> Tome:
        initialise_moco(self)
        return self


def check_size(spec: ModelSpec, image: Tensor) -> None:
    if image.shape[-2:] != (spec.image_size, spec.image_size):
        raise size_error(spec, image, spec.image_size)
