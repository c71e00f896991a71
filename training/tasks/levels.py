"""A loss that draws CAST's soft assignments to known nested regions. No published recipe uses it.

At each level a token (a superpixel, or a segment of the level below) should be assigned to seeds that lie in its own
region. The seeds are sampled from the raw tokens, which the assignment alone does not reach; so tokens of one region
are also drawn together, and those of different regions apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cast_sdk.models.cast import Level

TOKEN_TEMPERATURE = 0.2


def level_loss(levels: Sequence[Level], shares: Sequence[Tensor], tokens: float = 0.5) -> Tensor:
    """Mean over the levels of assignment loss + `tokens` x token loss.

    Args:
        levels: of the model's output.
        shares: per level [N,S,R], the share of each superpixel in each region (zero rows for absent superpixels).
        tokens: weight of the loss on the tokens themselves.
    """
    total = shares[0].new_zeros(())
    below: Tensor | None = None
    for level, known in zip(levels, shares, strict=True):
        sizes = (known.sum(-1) > 0).to(known.dtype)  # [N,S]: superpixels that exist
        if below is not None:
            known, sizes = pooled_shares(known, sizes, below, level.tokens.shape[1])
        total = total + assignment_loss(level.logits.float(), level.sampled, known, sizes)
        if tokens:
            total = total + tokens * token_loss(level.tokens.float(), known, sizes)
        below = level.labels
    return total / len(levels)


def pooled_shares(shares: Tensor, sizes: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Shares [N,K,R] and numbers of superpixels [N,K] of the segments that `labels` [N,S] make of superpixels."""
    member = F.one_hot(labels, count).to(shares.dtype) * sizes[..., None]  # [N,S,K]
    held = member.sum(1)
    return member.transpose(1, 2) @ shares / held.clamp(min=1)[..., None], held


def assignment_loss(logits: Tensor, sampled: Tensor, shares: Tensor, sizes: Tensor) -> Tensor:
    """Cross entropy of the assignment [N,T,K] with the seeds of a token's own region.

    Args:
        logits: pooling logits [N,T,K].
        sampled: seeds [N,K], indices of tokens.
        shares: of the tokens in the regions [N,T,R].
        sizes: weight of each token [N,T]; 0 leaves it out, as do tokens without a seed in their region.
    """
    seeds = shares.gather(1, sampled[..., None].expand(-1, -1, shares.shape[-1]))
    return _agreement(shares @ seeds.transpose(1, 2), logits, sizes)


def token_loss(tokens: Tensor, shares: Tensor, sizes: Tensor) -> Tensor:
    """Cross entropy of the cosine similarity of tokens [N,T,C] with belonging to one region; arguments as above."""
    present = (sizes > 0).to(tokens.dtype)[..., None]
    mean = (tokens * present).sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1)
    nodes = F.normalize(tokens - mean, dim=-1)
    same = shares @ shares.transpose(1, 2) * present.transpose(1, 2)
    own = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
    nowhere = own | (present.transpose(1, 2) == 0)
    logits = (nodes @ nodes.transpose(1, 2) / TOKEN_TEMPERATURE).masked_fill(nowhere, -1e4)
    return _agreement(same.masked_fill(own, 0), logits, sizes)


def _agreement(together: Tensor, logits: Tensor, sizes: Tensor) -> Tensor:
    """Cross entropy of softmax(logits) with the normalised rows of `together` [N,T,K]; rows near zero count nothing."""
    mass = together.sum(-1)
    weight = sizes * (mass > 0.1)
    target = together / mass.clamp(min=1e-6)[..., None]
    loss = -(target * logits.log_softmax(-1)).sum(-1)
    return (loss * weight).sum() / weight.sum().clamp(min=1)
