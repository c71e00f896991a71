"""Arguments of public functions: of their type and in their range, or an error that names them. Plain Python."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cast_sdk.errors import InputError


def whole(value: Any, name: str, low: int, high: int | None = None) -> int:
    """A whole number, Python's or NumPy's, from `low` to `high` inclusive; no bool, float or text.

    Raises:
        InputError: for anything else.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
        if low <= number and (high is None or number <= high):
            return number
    raise InputError(f"{name} is {shown(value)}, not a whole number {_range(low, high)}.")


def real(value: Any, name: str, low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> float:
    """A finite number from `low` to `high` inclusive; with `above`, `low` itself is too small.

    Raises:
        InputError: for anything else.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and low <= number <= high and not (above and number == low):
            return number
    bounds = f"above {low:g}" if above and high == math.inf else _range(low, high)
    raise InputError(f"{name} is {shown(value)}, not a number {bounds}".rstrip() + ".")


def one_of(value: Any, name: str, choices: Iterable[str]) -> str:
    """One of some words.

    Raises:
        InputError: for anything else.
    """
    words = tuple(choices)
    if isinstance(value, str) and value in words:
        return value
    raise InputError(f"There is no {name} {shown(value)}.", remedy=f"choose one of {', '.join(words)}")


def as_path(value: Any, name: str = "path") -> Path:
    """A path from text or `pathlib.Path`.

    Raises:
        InputError: for anything else, bytes included.
    """
    if isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str):
        return Path(value)
    raise InputError(f"{name} is {shown(value)}, which is no path.", remedy="give text or a pathlib.Path")


def shown(value: Any) -> str:
    """A value for a message, cut to a line."""
    try:
        text = repr(value)
    except Exception:  # a class of the caller's may fail at it
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _range(low: float, high: float | None) -> str:
    if high is None or high == math.inf:
        return "" if low == -math.inf else f"from {low:g}"
    return f"from {low:g} to {high:g}"
