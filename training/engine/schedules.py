"""Learning-rate and momentum schedules as pure functions of progress.

`epoch` is fractional where a schedule runs per iteration (epoch + step / steps) and whole where it runs per epoch.
Checked against the reference's values (tests/golden/schedules.npz).
"""

from __future__ import annotations

import math


def scaled_lr(lr: float, batch: int, reference: int | None) -> float:
    """Linear scaling rule: `lr` is given per `reference` images of the global batch; None: `lr` as it is."""
    return lr if reference is None else lr * batch / reference


def cosine(epoch: float, lr: float, epochs: float, warmup: float = 0.0, minimum: float = 0.0) -> float:
    """Linear warm-up from 0 over `warmup` epochs, then half a cosine from `lr` down to `minimum`.

    MoCo-v3 uses it per iteration; the linear probe per whole epoch without warm-up.
    """
    if epoch < warmup:
        return lr * epoch / warmup
    fraction = min((epoch - warmup) / max(epochs - warmup, 1e-9), 1.0)
    return minimum + (lr - minimum) * 0.5 * (1 + math.cos(math.pi * fraction))


def moco_momentum(epoch: float, base: float, epochs: float) -> float:
    """Momentum of the momentum encoder, from `base` up to 1 along half a cosine."""
    return 1 - 0.5 * (1 + math.cos(math.pi * epoch / epochs)) * (1 - base)


def deit_cosine(
    epoch: int, lr: float, epochs: int, warmup: int = 5, warmup_lr: float = 1e-6, minimum: float = 1e-5
) -> float:
    """Learning rate that the DeiT program uses during `epoch`.

    timm's cosine is set after each epoch with that epoch's number, so the value lags by one: epochs 0 and 1 both run
    at `warmup_lr`. Beyond `epochs` (the cool-down) it stays at `minimum`.
    """
    step = max(epoch - 1, 0)
    if step < warmup:
        return warmup_lr + step * (lr - warmup_lr) / warmup
    if step >= epochs:
        return minimum
    return minimum + 0.5 * (lr - minimum) * (1 + math.cos(math.pi * step / epochs))


def period(kind: str, epochs: int) -> int:
    """Epochs of half a period of DeiT's cosine.

    The first public revision of H-CAST (April 2025, `hcast_april`) keeps DeiT's 300 although training ends after 100,
    so the rate ends at three quarters of its peak; the second (June 2025, `hcast_june`) follows the given epochs.
    """
    return 300 if kind == "hcast_april" else epochs


def poly(step: float, lr: float, steps: float, power: float = 0.9, minimum: float = 0.0) -> float:
    """Polynomial decay per iteration from `lr` to `minimum` (Segmenter: 1e-5). `step` of `steps`, or a part of 1."""
    if step >= steps:
        return minimum
    return (lr - minimum) * (1 - step / steps) ** power + minimum


def warm(step: int, lr: float, value: float, warmup: int, start: float = 0.1) -> float:
    """The smaller of `value` and a ramp from `start * lr` to `lr` over `warmup` iterations (the VOC programs)."""
    if step >= warmup:
        return value
    alpha = step / warmup
    return min(value, lr * (start * (1 - alpha) + alpha))
