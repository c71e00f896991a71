"""The classes of all commands: what they print is written, or they say that it could not be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from cast_sdk.runtime.commands.common import fail_of_system


@contextmanager
def whole_output() -> Iterator[None]:
    """What the block prints is written when it ends; a program that cannot write it ends with a message.

    Where nobody reads on (a closed pipe) it ends in silence.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        if error.errno is None:  # not of the operating system
            raise
        fail_of_system(error)


class _Program:
    """For a class of click: -h beside --help, and output as `whole_output` has it."""

    def __init__(self, *arguments: Any, context_settings: Any = None, **options: Any) -> None:
        settings = {"help_option_names": ["-h", "--help"], **(context_settings or {})}
        super().__init__(*arguments, context_settings=settings, **options)  # type: ignore[call-arg]

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command, as a program unless told otherwise."""
        with whole_output():
            return super().main(*arguments, **options)  # type: ignore[misc]


class Command(_Program, click.Command):
    """A program without subcommands."""


class Group(_Program, click.Group):
    """A program with subcommands."""
