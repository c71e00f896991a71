"""Every command on the page of dense reproductions is one that the programs take."""

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [DOCS / name for name in ("reproduce_dense.md", "segmentation.md", "hierarchy.md")]


def commands():
    for page in PAGES:
        if not page.is_file():
            continue
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.search(r"training/(\w+)\.py (.*)", line.partition("  #")[0])
                if match:
                    yield pytest.param(match[1], shlex.split(match[2]), id=f"{page.stem}: {match[0][:60]}")


@pytest.mark.parametrize(("program", "arguments"), list(commands()))
def test_documented_command_parses(program, arguments):
    command = importlib.import_module(f"cast_sdk.training.{program}").main
    while isinstance(command, click.Group):
        name, *arguments = arguments
        assert name in command.commands, f"{program} has no command {name}"
        command = command.commands[name]
    recipe = command.make_context(program, list(arguments)).params.get("recipe")
    if recipe:
        from cast_sdk.training.engine.recipe.files import load_recipe

        load_recipe(recipe)
