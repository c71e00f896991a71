"""Exponential moving average of a model's weights and buffers."""

from __future__ import annotations

import copy

import torch
from torch import nn


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

    @torch.no_grad()
    def update(self) -> None:
        floats = [(t, s) for t, s in self.pairs if t.is_floating_point()]
        torch._foreach_lerp_([t for t, _ in floats], [s for _, s in floats], 1 - self.decay)
        for target, source in self.pairs:
            if not target.is_floating_point():
                target.copy_(source)
