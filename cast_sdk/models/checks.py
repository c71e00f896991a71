"""Checks of values that lie on a device."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from cast_sdk.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")
_waiting = threading.local()  # `checks`: those of this thread's forward pass that were not read yet


def require(
    condition: Tensor, error: Callable[[], InputError], problem: str, *, training: bool, later: bool = False
) -> None:
    """Fail where a condition does not hold.

    On the CPU, and on a GPU in evaluation, the value is read. In training on a GPU and in compiled graphs that would
    make the host wait in every step, so there the device itself stops the run with `problem`.

    Args:
        condition: bool, one element.
        error: what to raise where the value is read.
        problem: what the device says.
        later: on a GPU the value may be read when the function around, which is `read_at_the_end`, returns: what
            follows goes on safely where the condition does not hold.
    """
    checks = None if torch.compiler.is_compiling() else getattr(_waiting, "checks", None)
    if torch.compiler.is_compiling() or (training and on_device(condition)):
        torch._assert_async(condition, problem)
    elif later and checks is not None and on_device(condition):
        checks.append((condition, error))
    elif not condition:
        raise error()


def read_at_the_end(forward: Callable[P, R]) -> Callable[P, R]:
    """Decorator: what the function requires `later` of values on a GPU is read once, behind all of its work.

    Each read makes the host wait for the GPU, which then waits for the host.
    """

    @functools.wraps(forward)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return forward(*args, **kwargs)
        outer, _waiting.checks = getattr(_waiting, "checks", None), []
        try:
            result = forward(*args, **kwargs)
            checks = _waiting.checks
        finally:
            _waiting.checks = outer
        held = torch.stack([condition for condition, _ in checks]).tolist() if checks else []
        for holds, (_, error) in zip(held, checks, strict=True):
            if not holds:
                raise error()
        return result

    return checked


def on_device(condition: Tensor) -> bool:
    """Whether reading a value makes the host wait."""
    return condition.device.type != "cpu"
