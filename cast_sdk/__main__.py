"""`python -m cast_sdk COMMAND ...`: the console commands, where their folder is not on PATH."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata

from cast_sdk._version import __version__
from cast_sdk.runtime.commands.program import whole_output

HELP = """Usage: python -m cast_sdk COMMAND ...

{commands}
"""


def commands() -> dict[str, str]:
    """The console commands of this package without their "cast-", and where their programs are."""
    points = metadata.distribution("cast-sdk").entry_points
    return {
        point.name.removeprefix("cast-"): point.value for point in sorted(points) if point.group == "console_scripts"
    }


def main(words: list[str]) -> int:
    """Run the named command with the other words; without one, list the commands."""
    name = words[0] if words else "--help"
    if name == "--version":
        print(f"cast-sdk {__version__}")
        return 0
    known = commands()
    if name in known:
        module, _, function = known[name].partition(":")
        getattr(importlib.import_module(module), function)(words[1:], prog_name=f"python -m cast_sdk {name}")
        return 0
    text = HELP.format(commands="\n".join(f"  {command:<8}  as cast-{command}" for command in known))
    if name in ("-h", "--help"):
        print(text)
        return 0
    print(f"error: There is no command {name}.\n\n{text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    with whole_output():
        sys.exit(main(sys.argv[1:]))
