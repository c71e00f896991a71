"""The record of a folder of results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cast_sdk.errors import InputError
from cast_sdk.runtime.commands.results import NAME, Identity, Results, recorded

SUFFIXES = (".png", ".json")


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"a photograph")
    return path


def make(results: Results, source: Path) -> list[Path]:
    stem = results.stem(source, Path(source.stem), SUFFIXES)
    outputs = [results.folder / f"{stem}.png"]
    results.begin(outputs)
    outputs[0].write_bytes(b"a result")
    results.add(source, Identity.of(source), stem, outputs)
    return outputs


@pytest.fixture
def out(tmp_path, source) -> Path:
    folder = tmp_path / "out"
    with Results(folder, {"model": "m"}) as results:
        make(results, source)
    return folder


def finished(out: Path, source: Path, settings: dict | None = None) -> bool:
    with Results(out, settings or {"model": "m"}, overwrite=True) as results:
        return results.finished(source, [out / "a.png"])


def test_what_was_made_is_finished(out, source):
    assert finished(out, source)
    assert recorded(out) == {(out / NAME).resolve(), (out / "a.png").resolve()}


def replaced_with_an_older_date(source: Path, out: Path) -> None:
    source.write_bytes(b"another one.")
    os.utime(source, (0, 0))


def replaced_by_another_inode_of_the_same_date(source: Path, out: Path) -> None:
    info = source.stat()
    other = source.with_name("b.jpg")
    other.write_bytes(b"another one.")
    other.replace(source)
    os.utime(source, ns=(info.st_atime_ns, info.st_mtime_ns))


def result_emptied(source: Path, out: Path) -> None:
    (out / "a.png").write_bytes(b"")


def result_removed(source: Path, out: Path) -> None:
    (out / "a.png").unlink()


def source_removed(source: Path, out: Path) -> None:
    source.unlink()


@pytest.mark.parametrize(
    "change",
    [
        replaced_with_an_older_date,
        replaced_by_another_inode_of_the_same_date,
        result_emptied,
        result_removed,
        source_removed,
    ],
)
def test_what_changed_is_not_finished(out, source, change):
    change(source, out)
    assert not finished(out, source)


def test_a_touched_or_copied_source_is_the_same(out, source):
    os.utime(source, (1, 1))
    assert finished(out, source)


def test_other_settings(out, source):
    with pytest.raises(InputError, match=r"(?s)other options.*'m' before, 'n' now.*--overwrite"):
        Results(out, {"model": "n"})
    assert not finished(out, source, {"model": "n"})


def test_equal_names_of_two_folders(out, source, tmp_path):
    other = tmp_path / "other" / "a.jpg"
    other.parent.mkdir()
    other.write_bytes(b"a photograph")
    with Results(out, {"model": "m"}) as results:
        assert not results.finished(other, [out / "a.png"])
        assert results.stem(other, Path("a"), SUFFIXES) == Path("a_jpg")
        assert results.stem(source, Path("a"), SUFFIXES) == Path("a")


def test_names_stay_when_another_image_joins(out, tmp_path):
    joins = tmp_path / "a.bmp"  # sorts before a.jpg
    joins.write_bytes(b"x")
    with Results(out, {"model": "m"}) as results:
        assert [results.stem(joins, Path("a"), SUFFIXES), results.stem(tmp_path / "a.jpg", Path("a"), SUFFIXES)] == [
            Path("a_bmp"),
            Path("a"),
        ]


@pytest.mark.parametrize("foreign", ["a.png", "a.json"])
def test_files_of_the_user_keep_their_names(tmp_path, source, foreign):
    (tmp_path / foreign).write_text("mine")
    with Results(tmp_path, {"model": "m"}) as results:
        assert results.stem(source, Path("a"), SUFFIXES) == Path("a_segments")
        make(results, source)
    assert (tmp_path / foreign).read_text() == "mine"


def test_a_killed_process_leaves_no_file_that_is_taken_for_the_users(tmp_path, source):
    with Results(tmp_path / "out", {"model": "m"}) as results:
        results.begin([tmp_path / "out" / "a.png"])
    (tmp_path / "out" / "a.png").write_bytes(b"half")
    with (tmp_path / "out" / NAME).open("a") as file:
        file.write('{"source": "/cut of')
    with Results(tmp_path / "out", {"model": "m"}) as results:
        assert not results.finished(source, [tmp_path / "out" / "a.png"])
        assert make(results, source) == [tmp_path / "out" / "a.png"]
    assert finished(tmp_path / "out", source)


@pytest.mark.skipif(os.name != "posix", reason="locks are those of POSIX systems")
def test_two_commands_do_not_write_into_one_folder(out):
    with Results(out, {"model": "m"}), pytest.raises(InputError, match="Another process writes"):
        Results(out, {"model": "m"})


@pytest.mark.parametrize(
    "line",
    [
        '{"files": ["../../etc/passwd", "/etc/passwd", 5]}',
        '{"source": "/x", "stem": "../x", "size": 1, "mtime_ns": 1, "inode": 1, "sha256": "", "outputs": {}}',
        '{"source": 5, "outputs": {"/etc/passwd": 1}}',
        "[1, 2]",
        "\x00\xff",
    ],
)
def test_a_strange_record_claims_nothing(out, source, line):
    with (out / NAME).open("a", encoding="latin-1") as file:
        file.write(line + "\n")
    assert recorded(out) == {(out / NAME).resolve(), (out / "a.png").resolve()}
    assert finished(out, source)


@pytest.mark.parametrize("text", ["mine", "mine\n", '{"a": 1}\n', "\n\nmine", '["settings"]\n'])
def test_a_file_of_somebody_else_is_no_record(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    for look in (recorded, lambda folder: Results(folder, {"model": "m"}, overwrite=True)):
        with pytest.raises(InputError, match="no record of cast-segment"):
            look(tmp_path)
    assert (tmp_path / NAME).read_text() == text


@pytest.mark.parametrize("text", ["", "\n", "{", '{"settings":', '{"settings":{"model"'])
def test_a_record_that_was_cut_off_is_gone_on_with(tmp_path, source, text):
    (tmp_path / NAME).write_text(text)
    with Results(tmp_path, {"model": "m"}) as results:
        make(results, source)
    with Results(tmp_path, {"model": "m"}) as results:
        assert results.finished(source, [tmp_path / "a.png"])


@pytest.mark.parametrize("first", [b"\0" * 40, b"\0" * 40 + b'{"settings"', b"{spoiled"], ids=["nul", "both", "text"])
def test_a_record_whose_first_line_a_power_loss_spoiled_is_gone_on_with(tmp_path, source, first):
    with Results(tmp_path, {"model": "m"}) as results:
        make(results, source)
    (tmp_path / NAME).write_bytes(first + b"\n" + (tmp_path / NAME).read_bytes())
    with Results(tmp_path, {"model": "m"}) as results:
        assert results.finished(source, [tmp_path / "a.png"])


def test_a_pipe_is_no_record(tmp_path):
    os.mkfifo(tmp_path / NAME)
    for look in (recorded, lambda folder: Results(folder, {"model": "m"})):
        with pytest.raises(InputError, match="no ordinary file"):
            look(tmp_path)
