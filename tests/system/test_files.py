"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cast_sdk.errors import ExportError, InputError
from cast_sdk.system import files
from cast_sdk.system.files import atomic_write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path):
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        assert names(tmp_path) == [temporary.name]
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
def test_what_goes_wrong_while_writing_is_named(tmp_path, code):
    (tmp_path / "a.txt").write_text("before")
    with (
        pytest.raises(ExportError, match=rf"(?s)a\.txt cannot be written.*{os.strerror(code)}.*Remedy"),
        atomic_write(tmp_path / "a.txt"),
    ):
        raise OSError(code, os.strerror(code))
    assert names(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "before"


def test_other_errors_pass(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.txt"):
        (tmp_path / "another").read_text()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name, words",
    [("missing/a.txt", "cannot be written"), ("", "is a folder"), ("a\0b", "NUL"), ("x" * 300, "shorter name")],
)
def test_targets_that_cannot_be(tmp_path, name, words):
    with pytest.raises(ExportError, match=words), atomic_write(f"{tmp_path}/{name}"):
        pass
    assert names(tmp_path) == []


def test_a_pipe_is_no_target(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExportError, match="device, pipe or socket"), atomic_write(tmp_path / "pipe"):
        pass


def test_a_name_as_long_as_the_file_system_allows(tmp_path):
    name = "\N{LATIN SMALL LETTER E WITH ACUTE}" * 127
    with atomic_write(tmp_path / name) as temporary:
        temporary.write_text("x")
    assert names(tmp_path) == [name]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    program = (
        "import os, sys; from cast_sdk.system.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as t: t.write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.txt")], timeout=60)
    (left,) = names(tmp_path)
    assert left.startswith(".a.txt.") and left.endswith(".tmp")
    with atomic_write(tmp_path / "a.txt") as outer, atomic_write(tmp_path / "a.txt") as inner:
        assert sorted([outer.name, inner.name]) == names(tmp_path)
        inner.write_text("inner")
        outer.write_text("outer")
    assert names(tmp_path) == ["a.txt"]


def test_what_an_earlier_process_of_the_same_number_left_is_removed(tmp_path):
    """Containers give the same number to every start. The film of a recording has its suffix behind the name."""
    with atomic_write(tmp_path / "a.mp4") as temporary:
        name = temporary.name
        start = name.rpartition(f"-{os.getpid()}.")[0]
        film = tmp_path / f"{name}.mp4"
        film.touch()
        left = [tmp_path / f"{start}-{os.getpid()}.{end}" for end in ("old.tmp", "old.tmp.mp4")]
        foreign = [tmp_path / f"{start}-{os.getpid()}.old.txt", tmp_path / ".b.mp4.tmp"]
        for path in (*left, *foreign):
            path.touch()
        with atomic_write(tmp_path / "a.mp4"):
            pass
        assert film.exists() and all(path.exists() for path in foreign)
        assert not any(path.exists() for path in left)


@pytest.mark.parametrize(
    "read, content", [(files.read_json, b"{"), (files.read_text, b"\xff"), (files.read_csv, b"a," + b"x" * 200_000)]
)
def test_a_file_of_another_form_says_what_helps(tmp_path, read, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=r"file is not ") as caught:
        read(tmp_path / "file")
    assert caught.value.remedy


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "saved by Notepad"
    for read, content, expected in (
        (files.read_text, "birds\n", "birds\n"),
        (files.read_json, '{"a": 1}', {"a": 1}),
        (files.read_csv, "a,b\n", [["a", "b"]]),
    ):
        path.write_text("\ufeff" + content)
        assert read(path) == expected
