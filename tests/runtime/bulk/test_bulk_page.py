"""The page about many images, word by word: its commands run and its Python works on what they made."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import readers

pytest.importorskip("pyarrow", reason="pyarrow, of the extra bulk, is not installed")

import pyarrow as pa
import pyarrow.parquet as pq

PAGE = (Path(__file__).parents[3] / "docs" / "bulk.md").read_text()
COMMANDS = re.search(r"^```bash\n(.*?)^```", PAGE, re.S | re.M)[1].splitlines()
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M)


@pytest.fixture(scope="module")
def place(stock, tiny_onnx, tmp_path_factory) -> Path:
    """A folder with what the page's commands name, and what they made of it. No bucket is at hand."""
    place = tmp_path_factory.mktemp("page")
    files = sorted(path for path in stock.rglob("*") if path.is_file())
    shutil.copytree(stock, place / "photos")
    shutil.copy(files[0], place / "photo.jpg")
    shutil.copy(tiny_onnx, place / "cast_s.onnx")
    (place / "shards").mkdir()
    for number in range(2):
        with tarfile.open(place / "shards" / f"{number}.tar", "w") as shard:
            for path in files[number::2]:
                shard.add(path, path.name)
    pq.write_table(pa.table({"image": [path.read_bytes() for path in files]}), place / "table.parquet")
    (place / "list.txt").write_text("".join(f"{path.relative_to(stock.parent)}\n" for path in files))
    for line in COMMANDS:
        program, *words = shlex.split(line.replace(" s3://bucket/photos", ""), comments=True)
        assert program == "cast-bulk"
        command = [sys.executable, "-m", "cast_sdk.runtime.commands.bulk", *words, "--workers", "1", "-q"]
        subprocess.run(command, cwd=place, check=True, timeout=240)
    return place


def test_every_command_makes_its_own_data_set(place):
    outs = [re.search(r"--out (\S+)", line)[1] for line in COMMANDS]
    assert len(set(outs)) == len(outs) == 5
    tables = {out: pq.read_table(place / out).to_pylist() for out in outs}
    digests = {out: sorted(row["sha256"] for row in rows) for out, rows in tables.items()}
    assert all(found == digests["data"] and len(found) == 12 for found in digests.values())
    assert not any(row["error"] for rows in tables.values() for row in rows)


def test_the_pages_python_runs(place, monkeypatch):
    monkeypatch.chdir(place)
    names: dict = {}
    *read, search = PYTHON
    for block in read:
        exec(block, names)
    assert names["table"].num_rows == 12 and names["table"].column_names == ["path", "class", "probability"]
    assert names["layout"].labels(names["row"], 2).shape == (names["row"]["height"], names["row"]["width"])
    assert "faiss" in search


def test_the_search_finds_the_photograph_itself(place):
    done = readers.run(["-c", PYTHON[-1]], cwd=place)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5 and lines[0].split() == ["1.000", "photos/00.jpg"]
