"""Checks of values that lie on a device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cast_sdk.errors import InputError


def require(condition: Tensor, error: Callable[[], InputError], problem: str, *, training: bool) -> None:
    """Fail where a condition does not hold.

    On the CPU, and on a GPU in evaluation, the value is read. In training on a GPU and in compiled graphs that would
    make the host wait in every step, so there the device itself stops the run with `problem`.

    Args:
        condition: bool, one element.
        error: what to raise where the value is read.
        problem: what the device says.
    """
    if torch.compiler.is_compiling() or (training and condition.device.type != "cpu"):
        torch._assert_async(condition, problem)
    elif not condition:
        raise error()
