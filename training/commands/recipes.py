"""cast-train recipes: what the programs can reproduce."""

from __future__ import annotations

import click

from cast_sdk.runtime.commands.common import clean_exit, common_options
from cast_sdk.runtime.commands.program import Command


@click.command(cls=Command)
@click.argument("name", required=False)
@common_options
@clean_exit()
def main(name: str | None) -> None:
    """List the recipes with their programs, or print the recipe NAME.

    A copy with other values is a recipe too: cast-train recipes tiny_moco > mine.yaml
    """
    from cast_sdk.system.installing import require

    require("train", "Reading recipes")
    from cast_sdk.training.engine.recipe.files import list_recipes, load_recipe, recipe_file

    if name is not None:
        load_recipe(name)  # refuses what is none, with the nearest names
        click.echo(recipe_file(name).read_text(encoding="utf-8"), nl=False)
        return
    recipes = [load_recipe(one) for one in list_recipes()]
    width = max(len(one.name) for one in recipes)
    for recipe in sorted(recipes, key=lambda one: (one.program, one.name)):
        notes = " ".join(recipe.notes.split())
        line = notes if len(notes) <= 90 else notes[:89].rsplit(" ", 1)[0] + " ..."
        click.echo(f"{recipe.program:<12} {recipe.name:<{width}}  {line}")
