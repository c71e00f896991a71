"""Averages of tensors that have two names."""

from __future__ import annotations

import torch
from torch import nn

from cast_sdk.training.engine.ema import Ema


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.other = self.one
        self.alone = nn.Linear(2, 2)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))


def test_a_tensor_is_averaged_once_per_name_and_call():
    for aliases, power in ((False, 1), (True, 2)):
        model = Twice()
        ema = Ema(model, 0.9, aliases)
        for pairs in ema.rounds:
            targets = [target.data_ptr() for target, _ in pairs]
            assert len(targets) == len(set(targets))
        assert len(ema.rounds) == power
        before = {name: value.clone() for name, value in ema.model.state_dict().items()}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
            model.count.add_(5)
        ema.update()
        moved = {name: value - before[name] for name, value in ema.model.state_dict().items()}
        torch.testing.assert_close(moved["one.weight"], torch.full((3, 3), 1 - 0.9**power))
        torch.testing.assert_close(moved["alone.weight"], torch.full((2, 2), 0.1))
        assert int(ema.model.count) == 5
