"""What becomes of a command whose output cannot be written, or is not read."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import click
import pytest

from cast_sdk.runtime.commands.program import Command, Group

FULL = Path("/dev/full")
TRAINING = Path(__file__).parents[3] / "training"
COMMANDS = [
    point.value.partition(":")[0]
    for point in metadata.distribution("cast-sdk").entry_points
    if point.group == "console_scripts"
]
PROGRAMS = [f"cast_sdk.training.{path.stem}" for path in sorted(TRAINING.glob("*.py")) if path.stem != "__init__"]
DOORS = [
    ("cast_sdk.runtime.commands.segment", "--help"),
    ("cast_sdk.export.cli", "--version"),
    ("cast_sdk.export.cli", "inspect", "--help"),
    ("cast_sdk.training.prepare_data", "voc", "-h"),
    ("cast_sdk", "--help"),
    ("cast_sdk", "doctor", "models"),
]


def test_there_are_programs():
    assert len(COMMANDS) == 8 and len(PROGRAMS) >= 11


@pytest.mark.parametrize("module", [*COMMANDS, *PROGRAMS])
def test_every_program_looks_after_its_output(module):
    main = importlib.import_module(module).main
    assert isinstance(main, (Command, Group))
    for name in main.list_commands(click.Context(main)) if isinstance(main, Group) else ():
        assert main.get_command(click.Context(main), name) is not None


@pytest.mark.parametrize("words", DOORS, ids=" ".join)
def test_a_full_disk_behind_the_output_is_said(words):
    with FULL.open("w") as full:
        done = subprocess.run([sys.executable, "-m", *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    first, *more = done.stderr.splitlines()
    assert first == "error: The output cannot be written." and "No space left on device" in more[0] and len(more) == 2


@pytest.mark.parametrize("words", DOORS, ids=" ".join)
def test_where_nobody_reads_on_it_ends_in_silence(words):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", *words], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_neither_output_nor_errors_can_be_written():
    with FULL.open("w") as full:
        done = subprocess.run([sys.executable, "-m", *DOORS[0]], stdout=full, stderr=full)
    assert done.returncode == 1


def test_a_program_that_prints_without_a_flush():
    code = (
        "import click; from cast_sdk.runtime.commands.program import Command\n"
        "click.command(cls=Command)(lambda: print('a result'))(standalone_mode=True)"
    )
    with FULL.open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: The output cannot be written.\n")


CLOSED = """
import os, subprocess, sys
CHILD = "import os, sys; file = open(sys.argv[1], 'w'); os.write(1, b'of a library'); file.write('mine too')"
from cast_sdk.runtime.commands.program import open_closed_streams
open_closed_streams()
with open(sys.argv[1], "w") as file:
    os.write(1, b"of a library"); os.write(2, b"of a library")
    print(sys.stdin.read(), sys.stdout.isatty(), sys.stderr.isatty())
    file.write("mine")
subprocess.run([sys.executable, "-c", CHILD, sys.argv[2]], check=True)
"""


def test_closed_streams_are_no_files_of_the_user(tmp_path):
    """The next file that is opened would be number 0, 1 or 2."""
    file = tmp_path / "mine.txt"
    of_child = tmp_path / "of_child.txt"
    words = [sys.executable, CLOSED, str(file), str(of_child)]
    command = ["sh", "-c", 'exec "$0" -c "$1" "$2" "$3" <&- >&- 2>&-', *words]
    assert subprocess.run(command, timeout=60).returncode == 0
    assert (file.read_text(), of_child.read_text()) == ("mine", "mine too")
