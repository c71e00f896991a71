"""All settings of a recipe by name, and which of them have an effect."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from cast_sdk.errors import RecipeError
from cast_sdk.training.engine.recipe.settings import Recipe


def knobs(recipe: Recipe) -> dict[str, Any]:
    """All settings by their dotted names, such as "train.batch"; without name, program and notes."""
    found: dict[str, Any] = {}
    for one in dataclasses.fields(recipe):
        value = getattr(recipe, one.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{one.name}.{knob.name}": getattr(value, knob.name) for knob in dataclasses.fields(value)}
        elif one.name not in ("name", "program", "notes"):
            found[one.name] = value
    return found


# Knobs that only some optimizers and schedules have.
_OF_OPTIMIZER = {
    "adamw": {"betas", "eps", "layer_decay"},
    "sgd": {"momentum", "nesterov", "layer_decay"},
    "muon": {"betas", "eps", "muon_lr", "muon_momentum"},
}
_OF_SCHEDULE = {
    "cosine": {"warmup"},
    "epoch_cosine": {"warmup"},
    "deit": {"warmup", "warmup_lr"},
    "hcast_april": {"warmup", "warmup_lr"},
    "hcast_june": {"warmup", "warmup_lr"},
    "poly": {"power", "warmup_steps"},
}


def _without_effect(recipe: Recipe) -> set[str]:
    """Knobs that other knobs of the recipe put out of action."""
    optimizer, schedule = recipe.optimizer, recipe.schedule
    idle = {f"optimizer.{knob}" for knob in set().union(*_OF_OPTIMIZER.values()) - _OF_OPTIMIZER[optimizer.name]}
    idle |= {f"schedule.{knob}" for knob in set().union(*_OF_SCHEDULE.values()) - _OF_SCHEDULE[schedule.kind]}
    if recipe.taxonomy.tree:
        # The heads of a tree learn from labels alone.
        idle |= {"teacher.weight", "teacher.temperature", "teacher.others", "teacher.others_own"}
    else:
        idle.add("taxonomy.kl_weight")
    if schedule.minutes is not None:
        idle.add("schedule.steps")
    if not recipe.teacher.weight:
        idle |= {"teacher.temperature", "teacher.others", "teacher.others_own"}
    if not recipe.teacher.others:
        idle.add("teacher.others_own")
    if not recipe.levels.weight:
        idle |= {"levels.batch", "levels.scale", "levels.tokens"}
    # Where minutes or steps end a run, its epochs are the unit of warm-up and of schedules that change once an epoch.
    if schedule.ends_by != "epochs" and (
        schedule.kind == "poly" or (schedule.kind == "cosine" and not schedule.warmup)
    ):
        idle.add("schedule.epochs")
    return idle


def check_knobs(recipe: Recipe, program: str, reads: Collection[str], fixed: Mapping[str, Any]) -> None:
    """Refuse knobs that have no effect: a run must not be described by what it does not do.

    Args:
        recipe: to check.
        program: for the message.
        reads: knobs that the program uses, or whole sections.
        fixed: knobs that have this value in the program whatever the recipe says, so the recipe must say it.

    Raises:
        RecipeError: naming every knob with another value than its default that is not used.
    """
    given, default = knobs(recipe), knobs(Recipe())
    for name, value in fixed.items():
        if given[name] != value:
            raise RecipeError(
                f"{name} is {given[name]!r}, and {program} knows only {value!r}.", remedy=f"--set {name}={value}"
            )
    idle = _without_effect(recipe)
    unused = [
        name
        for name, value in given.items()
        if value != default[name]
        and name not in fixed
        and (name in idle or not {name, name.partition(".")[0]} & set(reads))
    ]
    if unused:
        raise RecipeError(
            f"{program} does not use {', '.join(unused)} as {recipe.name or 'the recipe'} sets it.",
            found=", ".join(f"{name}={given[name]!r}" for name in unused),
            remedy="remove it from the recipe or the --set options",
        )
