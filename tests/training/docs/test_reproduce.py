"""The commands of docs/reproduce*.md: programs, options and recipes that exist."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from cast_sdk.published import PUBLISHED
from cast_sdk.training.engine.recipe.files import list_recipes, load_recipe

DOCS = Path(__file__).parents[3] / "docs"
PAGES = sorted(DOCS.glob("reproduce*.md"))


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S):
            lines = re.sub(r"\\\n\s*", " ", block).splitlines()
            found += [line for line in lines if "training/" in line]
    return found


@pytest.mark.parametrize("line", commands())
def test_command_is_accepted(line, monkeypatch):
    words = shlex.split(line, comments=True)
    at = next(i for i, word in enumerate(words) if word.startswith("training/"))
    program = Path(words[at]).stem
    command, arguments = importlib.import_module(f"cast_sdk.training.{program}").main, words[at + 1 :]
    while isinstance(command, click.Group):
        name, arguments = arguments[0], arguments[1:]
        assert name in command.commands, line
        command = command.commands[name]
    for parameter in command.params:  # the files that lines name are not here
        if isinstance(parameter.type, click.Path):
            monkeypatch.setattr(parameter.type, "exists", False)
    values = command.make_context(command.name or program, list(arguments)).params  # parses, runs nothing
    if "recipe" in values:
        recipe = load_recipe(values["recipe"], values.get("overrides") or ())
        assert recipe.name in list_recipes()


def test_every_published_number_has_a_row():
    page = (DOCS / "reproduce.md").read_text()
    for row in PUBLISHED:
        for _, value in row.results:
            assert str(value) in page, (row.name, value)
    for recipe in re.findall(r"`((?:moco|lincls|deit)_\w+)`", page):
        assert load_recipe(recipe)
