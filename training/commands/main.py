"""cast-train: training on your own data, and the programs behind it."""

from __future__ import annotations

import importlib

import click

from cast_sdk.runtime.commands.common import common_options
from cast_sdk.runtime.commands.program import Group

# name -> (module, one line): the module is imported when its command runs or shows its help.
COMMANDS = {
    "classify": ("classify", "Fine-tune a classifier on folders of images, a CSV or shards."),
    "segment": ("segment", "Fine-tune a segmenter on images and masks."),
    "pretrain": ("pretrain", "Pre-train without labels on images."),
    "evaluate": ("evaluate", "Judge a checkpoint or an exported file on labelled images."),
    "recipes": ("recipes", "List the recipes, or print one."),
}


class Lazy(Group):
    """Commands that are imported when they are used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"cast_sdk.training.commands.{COMMANDS[name][0]}")
        command: click.Command = module.main
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=Lazy)
@common_options
def main() -> None:
    """Train CAST on your own images.

    \b
      cast-train classify birds/ --out runs/birds
      cast-train segment roads/ --out runs/roads
      cast-train pretrain photos/ --out runs/photos
      cast-train evaluate runs/birds/model.onnx more_birds/

    A command that was interrupted goes on when it is given again. Packages: the extras train and export.
    """


if __name__ == "__main__":
    main()
