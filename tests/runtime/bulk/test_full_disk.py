"""A disk that is full for real, at every moment of a data set. Skips where a small file system cannot be mounted."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow, of the extra bulk, is not installed")

import pyarrow.parquet as pq

import cast_sdk
from cast_sdk.errors import CastError, ExportError
from cast_sdk.runtime.bulk import job
from cast_sdk.runtime.bulk.dataset import Dataset
from cast_sdk.runtime.bulk.groups import GROUPS
from cast_sdk.runtime.bulk.inputs import Listing
from cast_sdk.runtime.bulk.rows import Recipe
from cast_sdk.runtime.bulk.schema import Layout

PAGE = 4096


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True
        )
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path, pages: int) -> None:
    """Leave so many pages free."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(PAGE)) == PAGE:
                pass
        except OSError:
            pass
        file.truncate(file.tell() // PAGE * PAGE - pages * PAGE)


@pytest.fixture(scope="module")
def layout(tiny_onnx) -> Layout:
    with cast_sdk.Runtime(tiny_onnx, threads=1) as runtime:
        return Layout.of(runtime, "0" * 64, GROUPS, tokens=False)


@pytest.fixture(scope="module")
def remembered(tiny_onnx, layout):
    """An engine that makes each row once, whatever happens to the data set."""
    work = Recipe(layout, {"model": str(tiny_onnx), "threads": 1})()
    rows: dict[tuple, bytes] = {}

    def engine(recipe, tasks, ended):
        for task in tasks:
            key = tuple(index for index, _ in task.items)
            if key not in rows:
                rows[key] = work(task, lambda position: None)
            yield task, rows[key]

    return engine


def make(out: Path, stock: Path, layout: Layout, engine: job.Engine) -> dict:
    with Dataset(out, layout, {}) as dataset:
        if not dataset.listed:
            dataset.list_inputs(Listing([str(stock)]), 5)
        return job.run(dataset, None, engine)  # type: ignore[arg-type]


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("part-*.parquet"))}


def test_full_at_every_moment_it_goes_on_from_there(disk, stock, layout, remembered, tmp_path):
    make(tmp_path / "whole", stock, layout, remembered)
    whole, reached = parts(tmp_path / "whole"), set()
    for pages in itertools.count():
        fill(disk, pages)
        try:
            make(disk / "out", stock, layout, remembered)
        except ExportError as error:
            assert "cannot be written" in str(error) and "No space left on device" in str(error)
        else:
            break  # so much is enough
        left = sorted(path.name for path in (disk / "out").glob("*"))
        assert not [name for name in left if name.startswith(".")], "half-written files are removed"
        assert whole.items() >= parts(disk / "out").items(), "a part that is there is whole"
        reached.add(tuple(left))
        (disk / "ballast").unlink()
        assert make(disk / "out", stock, layout, remembered)["complete"]
        assert parts(disk / "out") == whole
        for path in (disk / "out").iterdir():
            path.unlink()
    assert len(reached) >= 5, "it was full before the list, before the manifest and before each part"


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.full)])
def test_the_command_says_it_once_and_goes_on(disk, stock, tiny_onnx, tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray", reason="Ray, of the extra ray, is not installed")
    words = [sys.executable, "-m", "cast_sdk.runtime.commands.bulk", stock, "--model", tiny_onnx, "--part-rows", "5"]
    words += ["--workers", "1", "-q", "--engine", engine, "--out"]
    subprocess.run([*words, tmp_path / "whole"], check=True, timeout=240)
    whole = parts(tmp_path / "whole")
    others = sum(-(-path.stat().st_size // PAGE) for path in (tmp_path / "whole").glob("_*"))
    fill(disk, others + -(-len(whole["part-000000.parquet"]) // PAGE) + 1)
    done = subprocess.run([*words, disk / "out"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 1 and done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
    assert f"{disk}/out/part-000001.parquet cannot be written" in done.stderr and "free space" in done.stderr
    assert list(parts(disk / "out")) == ["part-000000.parquet"] and not list((disk / "out").glob(".*"))
    (disk / "ballast").unlink()
    subprocess.run([*words, disk / "out"], check=True, timeout=240)
    assert parts(disk / "out") == whole
    assert pq.read_table(disk / "out").num_rows == 12


def test_an_image_that_ends_its_process_while_the_disk_is_full(disk, stock, layout, remembered):
    with (
        pytest.raises(CastError, match=r"_ended\.jsonl cannot be written"),
        Dataset(disk / "out", layout, {}) as dataset,
    ):
        dataset.list_inputs(Listing([str(stock)]), 5)
        fill(disk, 0)
        dataset.add_ended(3, "a.jpg", "the process was ended by SIGSEGV")
    (disk / "ballast").unlink()
    with Dataset(disk / "out", layout, {}) as dataset:
        assert not dataset.ended()
        dataset.add_ended(3, "a.jpg", "the process was ended by SIGSEGV")
        assert dataset.ended() == {3: 1}
