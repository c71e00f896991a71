"""cast-bulk: its rows are the runtime's results; it goes on after any end; nothing is lost, twice or half there."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endings import Fragile

import cast_sdk
from cast_sdk.errors import InputError
from cast_sdk.runtime.bulk import job
from cast_sdk.runtime.bulk.dataset import Dataset
from cast_sdk.runtime.bulk.inputs import Listing
from cast_sdk.runtime.bulk.rows import Recipe
from cast_sdk.runtime.bulk.schema import GROUPS, Layout

BULK = [sys.executable, "-m", "cast_sdk.runtime.commands.bulk"]


def bulk(*words: object, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*BULK, *map(str, words)], capture_output=True, text=True, timeout=240, **options)
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def rows(out: Path) -> list[dict]:
    """All rows, in the order of their indices; checks that there is one per index."""
    table = pq.read_table(out)
    found = sorted(table.to_pylist(), key=lambda row: row["index"])
    assert [row["index"] for row in found] == list(range(len(found)))
    return found


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("part-*.parquet"))}


@pytest.fixture
def made(folder, tiny_onnx, tmp_path) -> Path:
    """An undisturbed data set of the folder, five rows per part."""
    out = tmp_path / "made"
    bulk(folder, "--out", out, "--model", tiny_onnx, "--part-rows", 5, "--workers", 2)
    return out


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_rows_are_what_the_runtime_says(folder, tiny_onnx, tmp_path, fit):
    out = tmp_path / "data"
    done = bulk(folder, "-o", out, "-m", tiny_onnx, "--part-rows", 5, "--workers", 1, "--fit", fit)
    assert "12 rows in 3 parts" in done.stdout
    runtime = cast_sdk.Runtime(tiny_onnx, fit=fit, threads=1)
    layout = Layout.from_schema(pq.read_schema(out / "part-000000.parquet"))
    for row in rows(out):
        result = runtime.segment(row["path"])
        assert (row["height"], row["width"]) == result.size and row["error"] is None
        (number, name, probability), *_ = result.top(1)
        assert (row["class_id"], row["class"]) == (number, name)
        assert row["probability"] == pytest.approx(probability) and row["unsure"] == result.unsure
        assert np.array_equal(np.asarray(row["embedding"], np.float32), result.embedding)
        for level in range(5):
            assert np.array_equal(layout.labels(row, level), result.labels(level))
        assert np.array_equal(layout.hierarchy(row).parents(1), result.parents(1))


def test_manifest_and_parts(made):
    manifest = json.loads((made / "_manifest.json").read_text())
    assert manifest["complete"] and manifest["rows"] == 12 and manifest["errors"] == 0
    assert [(part["file"], part["rows"]) for part in manifest["parts"]] == [
        ("part-000000.parquet", 5),
        ("part-000001.parquet", 5),
        ("part-000002.parquet", 2),
    ]
    schema = pq.read_schema(made / "part-000000.parquet")
    assert manifest["columns"] == {field.name: str(field.type) for field in schema}
    assert schema.field("embedding").type == pa.list_(pa.float32(), 8)
    assert not list(made.glob("*.tmp"))


def test_the_documented_columns_are_the_schema(made):
    page = (Path(__file__).parents[3] / "docs" / "bulk.md").read_text()
    for name in pq.read_schema(made / "part-000000.parquet").names:
        assert f"`{name}`" in page


def test_only_some_columns(folder, tiny_onnx, tmp_path):
    bulk(folder, "-o", tmp_path / "d", "-m", tiny_onnx, "--only", "embedding", "--workers", 1)
    names = ["index", "path", "sha256", "width", "height", "error"]
    assert pq.read_table(tmp_path / "d").column_names == [*names, "embedding"]


def test_tokens_on_request(folder, tmp_path, build_onnx, tiny_onnx):
    done = bulk(folder, "-o", tmp_path / "d", "-m", tiny_onnx, "--tokens", check=False)
    assert done.returncode == 1 and "does not give the tokens" in done.stderr and not (tmp_path / "d").exists()


def test_an_image_that_fails_is_a_row_with_its_error(folder, tiny_onnx, tmp_path):
    whole = (folder / "00.jpg").read_bytes()
    (folder / "bad.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    done = bulk(folder, "-o", tmp_path / "d", "-m", tiny_onnx, "--workers", 1)
    failed = {Path(row["path"]).name: row for row in rows(tmp_path / "d") if row["error"]}
    assert set(failed) == {"bad.jpg", "bad.png"} and "2 images have an error" in done.stderr
    assert "ends before its picture does" in failed["bad.jpg"]["error"]
    for row in failed.values():
        assert len(row["sha256"]) == 64 and row["embedding"] is None and row["class"] is None
    done = bulk(folder / "bad.jpg", "-o", tmp_path / "e", "-m", tiny_onnx, check=False)
    assert done.returncode == 1 and "not one image" in done.stderr and len(rows(tmp_path / "e")) == 1


def test_an_image_that_ends_its_process(folder, tiny_onnx, tmp_path):
    shutil.copy(folder / "00.jpg", folder / "deadly.jpg")
    with cast_sdk.Runtime(tiny_onnx, threads=1) as runtime:
        layout = Layout.of(runtime, "0" * 64, GROUPS, tokens=False)
    recipe = Fragile(Recipe(layout, {"model": str(tiny_onnx), "threads": 1}))
    with Dataset(tmp_path / "d", layout, {}) as dataset:
        dataset.list_inputs(Listing([str(folder)]), 5)
        manifest = job.run(dataset, recipe, job.local_engine(2))  # type: ignore[arg-type]
        assert manifest["errors"] == 1 and sum(dataset.ended().values()) == 2
    found = {Path(row["path"]).name: row for row in rows(tmp_path / "d")}
    assert len(found) == 13
    assert "ended the process that read it, 2 times" in found["deadly.jpg"]["error"]
    assert "SIGSEGV" in found["deadly.jpg"]["error"] and found["00.jpg"]["error"] is None


def test_the_same_command_goes_on_and_another_is_refused(made, folder, tiny_onnx):
    whole = parts(made)
    words = (folder, "--out", made, "--model", tiny_onnx, "--part-rows", 5)
    (made / "part-000001.parquet").unlink()
    (folder / "new.jpg").write_bytes((folder / "00.jpg").read_bytes())  # the list stays as it is
    assert "7 of 12 are finished already" in bulk(*words, "--workers", 1).stderr
    assert parts(made) == whole
    done = bulk(*words[:-1], 6, check=False)
    assert done.returncode == 1 and "other inputs or settings" in done.stderr and "part_rows 5 before, 6 now" in done.stderr
    (made / "part-000002.parquet").write_bytes(b"mine")
    done = bulk(*words, check=False)
    assert done.returncode == 1 and "not the part that belongs there" in done.stderr
    assert (made / "part-000002.parquet").read_bytes() == b"mine"


def test_a_folder_of_others_is_left_alone(folder, tiny_onnx, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "_inputs").write_text("words")
    done = bulk(folder, "-o", tmp_path / "mine", "-m", tiny_onnx, check=False)
    assert done.returncode == 1 and "holds other files" in done.stderr
    with Dataset(tmp_path / "x", LAYOUT, {}), pytest.raises(InputError, match="Another process"):
        Dataset(tmp_path / "x", LAYOUT, {})


LAYOUT = Layout("m", "0" * 64, (96, 96), "stretch", ("class",))


def test_killed_at_any_moment_the_same_command_goes_on(made, folder, tiny_onnx, tmp_path):
    out = tmp_path / "killed"
    words = [*BULK, str(folder), "--out", str(out), "--model", str(tiny_onnx), "--part-rows", "5", "--workers", "2"]
    for wanted in ("_manifest.json", "part-000000.parquet", "part-000001.parquet"):
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not (out / wanted).exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()
    bulk(*words[len(BULK) :])
    assert parts(out) == parts(made)
    assert rows(out) == rows(made)


def test_a_full_disk_loses_nothing(made, folder, tiny_onnx, tmp_path):
    out = tmp_path / "full"
    words = (folder, "--out", out, "--model", tiny_onnx, "--part-rows", 5, "--workers", 1)
    smallest = min(len(data) for data in parts(made).values())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (smallest - 1000, smallest - 1000))

    done = bulk(*words, check=False, preexec_fn=limit)
    assert done.returncode == 1 and "cannot be written" in done.stderr and "ulimit -f" in done.stderr
    assert not list(out.glob(".*")) and not parts(out)
    bulk(*words)
    assert parts(out) == parts(made)


def test_a_layout_of_the_future_is_refused():
    from cast_sdk.errors import ArtifactError

    with pytest.raises(ArtifactError, match="schema version 99"):
        Layout.from_schema(replace(LAYOUT, schema_version=99).schema())
    with pytest.raises(ArtifactError, match="no columns that cast-bulk wrote"):
        Layout.from_schema(pa.schema([("a", pa.int32())]))


def test_another_machine_gets_the_model_with_the_recipe(tiny_onnx, tmp_path, photo):
    with cast_sdk.Runtime(tiny_onnx, threads=1) as runtime:
        layout = Layout.of(runtime, "0" * 64, GROUPS, tokens=False)
    recipe = Recipe(layout, {"model": "/elsewhere/tiny.onnx", "threads": 1}, tiny_onnx.read_bytes())
    assert recipe()._runtime.spec.name == "fixture"
    assert not os.path.exists("/elsewhere")  # noqa: PTH110
