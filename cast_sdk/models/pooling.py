"""Graph pooling between stages, and the fusion of all stages that the segmentation models read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cast_sdk.errors import InputError, NotFiniteError
from cast_sdk.models.checks import require
from cast_sdk.models.layers import Attention
from cast_sdk.models.sampling import Sampler, farthest_points

SIMILARITY_SCALE = 5.0  # pooling logits are 5 x cosine


@dataclass
class Pooled:
    """What one pooling gives: the next stage's tokens and how it got them."""

    class_token: Tensor  # [N,1,C]
    centroids: Tensor  # [N,K,C]
    logits: Tensor  # [N,S,K]
    sampled: Tensor  # int64 [N,K]: the token that seeded each segment


class CentroidAttention(nn.Module):
    """Node features for the similarity: x + Attn(LN(x)), centred over the tokens, plus a learned vector."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(dim).normal_(std=0.01))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm(x))
        return x - x.mean(1, keepdim=True) + self.bias


class GraphPooling(nn.Module):
    """Groups S tokens into K segments by soft assignment to K sampled tokens."""

    def __init__(self, dim: int, num_heads: int, clusters: int, sampler: Sampler = "float64") -> None:
        super().__init__()
        self.clusters = clusters
        self.sampler = sampler
        self.centroid_fc = CentroidAttention(dim, num_heads)
        self.fc1 = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(0.1))
        self.fc2 = nn.Sequential(nn.LayerNorm(4 * dim), nn.Linear(4 * dim, dim))

    def sample(self, x: Tensor, empty: Tensor | None) -> Tensor:
        """Indices [N,K] of the tokens that seed the segments.

        Sampling starts at the mean of the non-empty tokens; empty ones are moved onto it, so they are never chosen.
        """
        x = x.detach()
        if empty is None:
            mean = x.mean(1, keepdim=True)
        else:
            present = (~empty)[..., None].to(x.dtype)
            mean = (x * present).sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1)
            x = torch.where(empty[..., None], mean, x)
        sampled = farthest_points(torch.cat([mean, x], 1), self.clusters + 1, self.sampler)[:, 1:] - 1
        problem = f"An image has fewer distinct tokens than the {self.clusters} segments to pool them into."

        def error() -> InputError:
            if not bool(x.float().square().sum().isfinite()):  # no distance is greater than NaN
                return NotFiniteError(
                    "The tokens of an image are NaN, infinite or too large.",
                    remedy="check the weights: the training that made them has diverged",
                )
            return InputError(
                problem,
                found="a flat colour, or too few superpixels",
                remedy="use more superpixels, a model with fewer clusters, or leave this image out",
            )

        require((sampled >= 0).all(), error, problem, training=self.training, later=True)
        return sampled.clamp(min=0)

    def forward(self, class_token: Tensor, x: Tensor, empty: Tensor | None = None) -> Pooled:
        """class_token [N,1,C], x [N,S,C], empty: bool [N,S], True where a superpixel has no pixels."""
        sampled = self.sample(x, empty)

        nodes = F.normalize(self.centroid_fc(x), dim=-1)
        seeds = _rows(nodes, sampled)
        logits = SIMILARITY_SCALE * nodes @ seeds.transpose(1, 2)

        values = self.fc1(torch.cat([class_token, x], 1))
        assignment = logits.softmax(-1).transpose(1, 2)
        means = (assignment @ values[:, 1:]) / assignment.sum(-1, keepdim=True)
        out = self.fc2(torch.cat([values[:, :1], means.to(values.dtype)], 1))

        return Pooled(class_token + out[:, :1], out[:, 1:] + _rows(x, sampled), logits, sampled)


class TokenBatchNorm(nn.Module):
    """BatchNorm1d over the channels of [N,T,C]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.flatten(0, 1)).view_as(x)


class BlockFusion(nn.Module):
    """Brings the tokens of all four stages back to the superpixels and mixes them: [N,1+S,4C] -> [N,1+S,C]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj_blocks = nn.Sequential(TokenBatchNorm(4 * dim), nn.Dropout(0.2), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Sequence[Tensor], class_tokens: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """tokens: four of [N,S_l,C] before pooling; class_tokens: four of [N,1,C] after it; labels: composed [N,S]."""
        unpooled = [tokens[0]] + [_rows(x, index) for x, index in zip(tokens[1:], labels, strict=False)]
        fused = torch.cat([torch.cat(list(class_tokens), -1), torch.cat(unpooled, -1)], 1)
        return self.proj_blocks(fused)


def compose_labels(logits: Sequence[Tensor]) -> list[Tensor]:
    """Segment of every superpixel at each level, [N,S] int64, by chaining the arg-max of pooling logits [N,S_l,K_l]."""
    labels: list[Tensor] = []
    for level in logits:
        own = level.argmax(-1)
        labels.append(own if not labels else own.gather(1, labels[-1]))
    return labels


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """x [N,S,C], index [N,K] -> [N,K,C]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
