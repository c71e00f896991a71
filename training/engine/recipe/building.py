"""A recipe from plain data: unknown keys are errors that name the nearest known one, and values have their types."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from cast_sdk.arguments import shown
from cast_sdk.errors import RecipeError
from cast_sdk.training.engine.recipe.knobs import knobs
from cast_sdk.training.engine.recipe.settings import Recipe
from cast_sdk.training.engine.recipe.values import check_numbers


def recipe_from_dict(data: Mapping[str, Any]) -> Recipe:
    """A recipe from plain data.

    Raises:
        RecipeError: for an unknown key, a value of the wrong type, or a number out of its range.
    """
    recipe: Recipe = _build(Recipe, data, "")
    found = knobs(recipe)
    phases = found.pop("phases")
    for one in (found, *({f"phases.{key}": value for key, value in vars(phase).items()} for phase in phases)):
        check_numbers(one)
    _check_soft_losses(recipe)
    return recipe


def _check_soft_losses(recipe: Recipe) -> None:
    teacher = recipe.teacher
    if teacher.weight and (recipe.augment.mixup or recipe.augment.cutmix):
        raise RecipeError(
            "Mixed images have no soft labels: a teacher was asked about single images.",
            found=f"teacher.weight {teacher.weight} with mixup or cutmix",
            remedy="--set augment.mixup=0 --set augment.cutmix=0, or --set teacher.weight=0",
        )


def _build(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where or 'The recipe'} is {shown(data)} in place of keys with values.")
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in data.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, 1)
            raise RecipeError(
                f"There is no setting {where + '.' if where else ''}{str(key) or repr(key)}.",
                remedy=f"did you mean {near[0]!r}?" if near else "one of: " + ", ".join(hints),
            )
        values[key] = _convert(hints[key], value, f"{where + '.' if where else ''}{key}")
    return kind(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where)
    if origin is Literal and any(value == one and type(value) is type(one) for one in arguments):
        return value
    if origin is tuple and isinstance(value, (list, tuple)):
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], item, where) for item in value)
        if len(value) == len(arguments):
            return tuple(_convert(a, item, where) for a, item in zip(arguments, value, strict=True))
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except (ValueError, OverflowError):
            pass
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    expected = "one of " + ", ".join(map(repr, arguments)) if origin is Literal else getattr(hint, "__name__", hint)
    raise RecipeError(f"{where} is {shown(value)}, which is not {expected}.", remedy=f"--set {where}=VALUE")
