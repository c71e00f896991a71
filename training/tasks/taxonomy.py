"""What a taxonomy adds to supervised training: targets of every level and the loss of H-CAST.

    total = sum over levels of cross entropy + weight * tree-path KL

The tree-path KL compares one softmax over the classes of all levels together with the joined targets divided by the
number of levels, so at its optimum every class of the true path has the same share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cast_sdk.taxonomy import Taxonomy, path_table


def level_targets(rows: Tensor, table: Tensor, classes: Sequence[int], smoothing: float) -> list[Tensor]:
    """Targets of every level, fine to coarse, from the mixed classes of the finest one.

    Mixing images mixes the classes of all levels alike, so a coarser level's target is the sum over its members.
    Smoothing is over each level's own classes.

    Args:
        rows: float [B, finest classes], each summing to 1: one-hot, or mixed by mixup or CutMix without smoothing.
        table: int64 [finest classes, levels], the paths.
        classes: of each level.
        smoothing: what is spread over all classes of a level.
    """
    targets = []
    for level, count in enumerate(classes):
        summed = rows.new_zeros(len(rows), count).index_add_(1, table[:, level], rows)
        targets.append(summed * (1 - smoothing) + smoothing / count)
    return targets


def cross_entropies(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean cross entropy of every level: [levels]."""
    return torch.stack([F.cross_entropy(a.float(), y) for a, y in zip(logits, targets, strict=True)])


def tree_path_kl(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """KL divergence of the joint softmax from the joined targets, mean over the batch.

    Args:
        logits: [B, classes] of every level, in any one order.
        targets: of the same shapes, rows summing to 1.
    """
    scores = torch.cat([level.float() for level in logits], 1).log_softmax(1)
    wanted = torch.cat(list(targets), 1) / len(targets)
    return F.kl_div(scores, wanted, reduction="batchmean")


def taxonomy_loss(logits: Sequence[Tensor], targets: Sequence[Tensor], kl_weight: float) -> Tensor:
    """Sum of the levels' cross entropies plus `kl_weight` times the tree-path KL."""
    loss = cross_entropies(logits, targets).sum()
    return loss + kl_weight * tree_path_kl(logits, targets) if kl_weight else loss


class TaxonomyLoss:
    """The loss of a model's heads against the classes of the finest level."""

    def __init__(self, levels: Taxonomy, smoothing: float, kl_weight: float) -> None:
        """
        Args:
            levels: with their tree, fine to coarse.
            smoothing: of the targets, over each level's own classes.
            kl_weight: of the tree-path KL.
        """
        self.table = torch.from_numpy(np.asarray(path_table(levels), np.int64))
        self.classes = [level.num_classes for level in levels]
        self.smoothing, self.kl_weight = smoothing, kl_weight

    def __call__(self, logits: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Mean loss of a batch.

        Args:
            logits: [B, classes] of every level, fine to coarse.
            targets: finest classes, int64 [B], or mixed by mixup or CutMix, float [B, finest classes].
        """
        self.table = self.table.to(targets.device)
        rows = targets if targets.is_floating_point() else F.one_hot(targets, self.classes[0]).float()
        return taxonomy_loss(logits, level_targets(rows, self.table, self.classes, self.smoothing), self.kl_weight)
