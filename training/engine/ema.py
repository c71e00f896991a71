"""Exponential moving average of a model's weights and buffers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Ema:
    """`average = decay * average + (1 - decay) * model` after each step; integer buffers are copied.

    Args:
        aliases: update a tensor once per name it has in the state dict. Blocks have two names, so their effective decay
            is then `decay**2`; the DeiT program does this.
    """

    def __init__(self, model: nn.Module, decay: float, aliases: bool = False) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        names = list(model.state_dict())
        if not aliases:
            first = {value.data_ptr(): name for name, value in reversed(model.state_dict().items()) if value.numel()}
            names = sorted(first.values())
        source, target = model.state_dict(), self.model.state_dict()
        self.pairs = [(target[name], source[name]) for name in names]
        self.rounds = without_repeats([pair for pair in self.pairs if pair[0].is_floating_point()])

    @torch.no_grad()
    def update(self) -> None:
        for pairs in self.rounds:
            torch._foreach_lerp_([target for target, _ in pairs], [source for _, source in pairs], 1 - self.decay)
        for target, source in self.pairs:
            if not target.is_floating_point():
                target.copy_(source)


def without_repeats(pairs: list[tuple[Tensor, Tensor]]) -> list[list[tuple[Tensor, Tensor]]]:
    """Rounds in which no target appears twice: what one fused call does to a tensor under two names is not defined."""
    rounds: list[list[tuple[Tensor, Tensor]]] = []
    seen: dict[int, int] = {}
    for pair in pairs:
        at = seen[pair[0].data_ptr()] = seen.get(pair[0].data_ptr(), -1) + 1
        rounds += [[]] if at == len(rounds) else []
        rounds[at].append(pair)
    return rounds
