"""Recipes as YAML files of `training/recipes/`, with changes from the command line.

    recipe = load_recipe("deit_cast_small", ["train.batch=256", "schedule.epochs=100"])

A name is a file of that folder without its suffix; a path to a YAML file works too.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cast_sdk.arguments import shown
from cast_sdk.errors import RecipeError
from cast_sdk.system.files import kind_at
from cast_sdk.training.engine.recipe.building import recipe_from_dict
from cast_sdk.training.engine.recipe.settings import Recipe
from cast_sdk.training.engine.recipe.values import parse_yaml, read_yaml

log = logging.getLogger(__name__)
FOLDER = Path(__file__).parents[2] / "recipes"


def list_recipes() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def recipe_file(name: str) -> Path:
    """The file of a recipe: one of this package by its name, or any other by its path.

    Raises:
        RecipeError: when there is none.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if kind_at(path) != "file":
        near = difflib.get_close_matches(name, list_recipes(), 3)
        raise RecipeError(
            f"There is no recipe {name!r}.",
            remedy="one of: " + ", ".join(near or list_recipes()),
        )
    return path


def load_recipe(name: str, overrides: Iterable[str] = (), program: str | None = None) -> Recipe:
    """Read a recipe and apply `section.key=value` overrides (values in YAML notation).

    Raises:
        RecipeError: for an unknown recipe, key or program, or a value of the wrong type.
    """
    path = recipe_file(name)
    data = read_yaml(path) or {}
    if not isinstance(data, dict):
        raise RecipeError(f"{path} holds {shown(data)} in place of keys with values.")
    overrides = epochs_obey(data, list(overrides))
    for one in overrides:
        override(data, one)
    data.setdefault("name", path.stem)
    recipe = recipe_from_dict(data)
    if program is not None and recipe.program != program:
        raise RecipeError(
            f"{recipe.name} is a recipe for {recipe.program}, and this program is {program}.",
            remedy=f"python training/{recipe.program}.py --recipe {recipe.name} ...",
        )
    return recipe


def override(data: dict[str, Any], text: str) -> None:
    """Put `section.key=value` (the value in YAML notation) into a recipe's data.

    Raises:
        RecipeError: for a text without a value, or a key below a value.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise RecipeError(f"--set {text} gives no value.", remedy="--set key=value, for example --set train.batch=64")
    *sections, last = (part.strip() for part in key.split("."))
    target = data
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            remedy = f"--set {key.strip().rpartition('.')[0]}=VALUE"
            raise RecipeError(f"{section} is a value and has no keys below it.", found=text, remedy=remedy)
    target[last] = parse_yaml(value, f"--set {text}")


def epochs_obey(data: Mapping[str, Any], overrides: list[str]) -> list[str]:
    """Overrides by which `schedule.epochs` ends the run where only it was given on the command line, which is said.

    Raises:
        RecipeError: when another end was given there too: minutes and steps would leave the epochs without effect.
    """
    given = {key.strip(): value.strip() for key, _, value in (one.partition("=") for one in overrides)}
    if "schedule.epochs" not in given:
        return overrides
    recipe_schedule = data.get("schedule")
    for end in ("minutes", "steps"):
        name = f"schedule.{end}"
        if given.get(name, "null").lower() not in ("null", "~", ""):
            raise RecipeError(
                f"schedule.epochs and {name} were both given, and only one can end the run.",
                found=f"schedule.epochs={given['schedule.epochs']}, {name}={given[name]}",
                remedy=f"leave out --set {name}=..., or --set schedule.epochs=...",
            )
        if name not in given and isinstance(recipe_schedule, Mapping) and recipe_schedule.get(end) is not None:
            log.warning("schedule.epochs ends this run, not the recipe's %s=%s", name, recipe_schedule[end])
            overrides = [*overrides, f"{name}=null"]
    return overrides
