"""Plain data from a file as a dataclass: every field of its type and in its range, or an error that names it.

Files may come from strangers. What passes here needs no further look; what does not is refused before anything is
computed or allocated from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

from cast_sdk.errors import ArtifactError

T = TypeVar("T")
Ranges = Mapping[str, tuple[float, float]]


def build(cls: type[T], data: object, what: str, ranges: Ranges | None = None, *, remedy: str) -> T:
    """An instance of a dataclass from JSON data.

    Lists become tuples, nested objects become the dataclasses that the fields name. A whole number may stand where a
    float is wanted; nothing else is converted.

    Args:
        cls: a dataclass whose fields are annotated with int, float, str, bool, None, Any, Literal, tuple,
            dict[str, Any], other dataclasses, or unions of these.
        data: what JSON gave.
        what: what the data is, for messages: "the model description".
        ranges: least and largest value of numbers by field name, also of those in tuples; of strings and tuples the
            least and largest length.
        remedy: what to do when it cannot be used.

    Raises:
        ArtifactError: naming the first field that is unknown, missing, of another type or out of range.
    """
    try:
        return typing.cast(T, _instance(cls, data, "", ranges or {}))
    except _Unfit as unfit:
        raise ArtifactError(f"{what[0].upper()}{what[1:]} cannot be used: {unfit}", remedy=remedy) from None


class _Unfit(Exception):
    """Why data does not fit, with the name of the field."""


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _instance(cls: Any, data: object, at: str, ranges: Ranges) -> Any:
    if not isinstance(data, Mapping):
        raise _Unfit(f"{at or 'it'} is not an object but {_kind(data)}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f"; the nearest known one is {near[0]!r}" if near else ""
            raise _Unfit(f"the field {_join(at, key)!r} is unknown{hint}.")
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _value(_hints(cls)[name], data[name], _join(at, name), ranges)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _Unfit(f"the field {_join(at, name)!r} is missing.")
    return cls(**values)


def _value(hint: Any, value: object, at: str, ranges: Ranges) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _one_of(typing.get_args(hint), value, at, ranges)
    if origin is Literal:
        choices = typing.get_args(hint)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise _Unfit(f"{at} is {_kind(value)}, not one of {', '.join(map(repr, choices))}.")
        return value
    if origin is tuple:
        return _tuple(typing.get_args(hint), value, at, ranges)
    if origin is dict or hint is dict:
        if not isinstance(value, dict):
            raise _Unfit(f"{at} is {_kind(value)}, not an object.")
        return dict(value)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else _instance(hint, value, at, ranges)  # type: ignore[arg-type]
    return _plain(hint, value, at, ranges)


def _one_of(hints: tuple[Any, ...], value: object, at: str, ranges: Ranges) -> Any:
    if value is None and type(None) in hints:
        return None
    others = [hint for hint in hints if hint is not type(None)]
    for hint in others[:-1]:
        try:
            return _value(hint, value, at, ranges)
        except _Unfit:
            continue
    return _value(others[-1], value, at, ranges)


def _tuple(hints: tuple[Any, ...], value: object, at: str, ranges: Ranges) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _Unfit(f"{at} is {_kind(value)}, not a list.")
    name = at.rpartition(".")[2]
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
        if f"{name}[]" in ranges:
            _in_range(len(value), f"the length of {at}", ranges[f"{name}[]"])
    elif hints == ((),) or not hints:
        hints = ()
    if len(value) != len(hints):
        raise _Unfit(f"{at} has {len(value)} entries, not {len(hints)}.")
    return tuple(_value(hint, entry, at, ranges) for hint, entry in zip(hints, value, strict=True))


def _plain(hint: Any, value: object, at: str, ranges: Ranges) -> Any:
    name = at.rpartition(".")[2]
    if hint is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not hint:
        raise _Unfit(f"{at} is {_kind(value)}, not {_NAMES.get(hint, str(hint))}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Unfit(f"{at} is {value}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and name in ranges:
        _in_range(value, at, ranges[name])
    return value


def _in_range(value: float, at: str, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low <= value <= high:
        raise _Unfit(f"{at} is {value}, outside of {low:g} to {high:g}.")


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def _kind(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _join(at: str, name: object) -> str:
    return f"{at}.{name}" if at else str(name)
