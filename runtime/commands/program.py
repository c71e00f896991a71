"""The classes of all commands: what they print is written, or they say that it could not be."""

from __future__ import annotations

import os
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


def open_closed_streams() -> None:
    """Standard streams that were closed (`>&-`) lead nowhere, and exist.

    Otherwise the next file that is opened would be number 1 or 2, and what a library prints would go into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)  # children open files too
            if getattr(sys, name) is None:
                setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (open to the end)


class _Program:
    """For a class of click: -h beside --help, and output as `whole_output` has it."""

    def __init__(self, *arguments: Any, context_settings: Any = None, **options: Any) -> None:
        settings = {"help_option_names": ["-h", "--help"], **(context_settings or {})}
        super().__init__(*arguments, context_settings=settings, **options)  # type: ignore[call-arg]

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command, as a program unless told otherwise."""
        open_closed_streams()
        with whole_output():
            return super().main(*arguments, **options)  # type: ignore[misc]


class Command(_Program, click.Command):
    """A program without subcommands."""


class Group(_Program, click.Group):
    """A program with subcommands."""
