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
import pictures
import pytest
from endings import Fragile, Odd

pytest.importorskip("pyarrow", reason="pyarrow, of the extra bulk, is not installed")

import pyarrow as pa
import pyarrow.parquet as pq

import cast_sdk
from cast_sdk.errors import ArtifactError, EngineError, InputError
from cast_sdk.runtime.bulk import job
from cast_sdk.runtime.bulk.dataset import Dataset, Parts
from cast_sdk.runtime.bulk.groups import GROUPS
from cast_sdk.runtime.bulk.inputs import Listing
from cast_sdk.runtime.bulk.rows import Recipe
from cast_sdk.runtime.bulk.schema import Layout

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


@pytest.fixture(scope="session")
def made(stock, tiny_onnx, tmp_path_factory) -> Path:
    """An undisturbed data set of the stock, five rows per part; nobody changes it."""
    out = tmp_path_factory.mktemp("made") / "data"
    done = bulk(stock, "--out", out, "--model", tiny_onnx, "--part-rows", 5, "--workers", 2)
    assert "12 rows in 3 parts" in done.stdout
    return out


def test_rows_are_what_the_runtime_says(made, tiny_onnx):
    check_rows(made, cast_sdk.Runtime(tiny_onnx, threads=1))


def test_rows_of_a_crop_and_of_tokens_left_out(stock, tiny_onnx, tmp_path):
    runtime = cast_sdk.Runtime(tiny_onnx, threads=1, fit="crop")
    layout = Layout.of(runtime, "0" * 64, GROUPS, tokens=False)
    out = tmp_path / "data"
    with Dataset(out, layout, {}) as dataset:
        dataset.list_inputs(Listing([str(stock)]), 100)
        job.run(dataset, Recipe(layout, {"model": str(tiny_onnx), "threads": 1, "fit": "crop"}), in_this_process)
    check_rows(out, runtime)
    with pytest.raises(InputError, match="does not give the tokens"):
        Layout.of(runtime, "0" * 64, GROUPS, tokens=True)


def in_this_process(recipe, tasks, ended):
    """An engine without processes."""
    work = recipe()
    return ((task, work(task, lambda position: None)) for task in tasks)


def check_rows(out: Path, runtime: cast_sdk.Runtime) -> None:
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


def test_only_some_columns(stock, tiny_onnx, tmp_path):
    runtime = cast_sdk.Runtime(tiny_onnx, threads=1)
    names = ["index", "path", "sha256", "width", "height", "error"]
    assert Layout.of(runtime, "", ["embedding"], tokens=False).schema().names == [*names, "embedding"]
    assert "levels" in Layout.of(runtime, "", ["levels"], tokens=False).schema().names


def test_the_command_knows_the_columns_without_loading_them():
    code = (
        "import sys; from cast_sdk.runtime.bulk.groups import GROUPS; from cast_sdk.runtime.commands.bulk import main\n"
        "(only,) = (one for one in main.params if one.name == 'only')\n"
        "assert tuple(only.type.choices) == GROUPS and 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_ray_the_command_says_so_before_it_begins(stock, tiny_onnx, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from cast_sdk.runtime.commands.bulk import main
    from cast_sdk.system.installing import Requirement

    monkeypatch.setattr("cast_sdk.system.installing.unmet", lambda _: [(Requirement("ray", ">=2.51", ""), None)])
    words = [str(stock), "-o", str(tmp_path / "d"), "-m", str(tiny_onnx), "--engine", "ray"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1 and "--engine ray needs ray" in done.output and "pip install" in done.output
    assert not (tmp_path / "d").exists()


def test_where_there_is_no_terminal_no_bar_is_drawn(stock, tiny_onnx, tmp_path):
    done = bulk(stock, "-o", tmp_path / "d", "-m", tiny_onnx, "--workers", 1)
    assert done.stderr.startswith("Runtime(") and "images" not in done.stderr.splitlines()


def test_an_image_that_fails_is_a_row_with_its_error(folder, tiny_onnx, tmp_path):
    whole = (folder / "00.jpg").read_bytes()
    (folder / "bad.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    words = [folder / "bad.jpg", folder / "bad.png"]
    done = bulk(*words, "-o", tmp_path / "d", "-m", tiny_onnx, "--workers", 1, check=False)
    assert done.returncode == 1 and "not one image could be used" in done.stderr
    failed = {Path(row["path"]).name: row for row in rows(tmp_path / "d") if row["error"]}
    assert set(failed) == {"bad.jpg", "bad.png"} and "2 images have an error" in done.stderr
    assert "damaged or not complete" in failed["bad.jpg"]["error"]
    for row in failed.values():
        assert len(row["sha256"]) == 64 and row["embedding"] is None and row["class"] is None


def test_an_image_of_an_impossible_depth_is_a_row_with_its_error(folder, tiny_onnx, tmp_path):
    (folder / "bad.png").write_bytes(pictures.png_of_depth(0))
    done = bulk(folder / "bad.png", folder / "00.jpg", "-o", tmp_path / "d", "-m", tiny_onnx, "--workers", 1)
    assert "1 image has an error" in done.stderr
    bad, good = rows(tmp_path / "d")
    assert "0 bits per channel" in bad["error"] and len(bad["sha256"]) == 64
    assert good["error"] is None and good["class"]


@pytest.mark.parametrize("engine", ["here", "in a process"])
def test_an_error_that_nobody_foresaw_is_a_row_too(folder, tiny_onnx, tmp_path, caplog, engine):
    shutil.copy(folder / "00.jpg", folder / "odd.jpg")
    recipe, layout = recipe_of(tiny_onnx)
    caplog.set_level("DEBUG", "cast_sdk.runtime.bulk")
    with Dataset(tmp_path / "d", layout, {}) as dataset:
        dataset.list_inputs(Listing([str(folder / "odd.jpg"), str(folder / "00.jpg")]), 5)
        chosen = in_this_process if engine == "here" else job.local_engine(1)
        assert job.run(dataset, Odd(recipe), chosen)["errors"] == 1  # type: ignore[arg-type]
    odd, good = rows(tmp_path / "d")
    assert "nobody foresaw" in odd["error"] and "ZeroDivisionError" in odd["error"] and len(odd["sha256"]) == 64
    assert "Traceback" not in odd["error"] and good["error"] is None and good["class"]
    (record,) = (one for one in caplog.records if "Traceback" in one.message)
    assert record.levelname == "DEBUG" and "odd.jpg" in record.message and "preparing" in record.message


def test_a_network_that_is_gone_ends_the_work_and_keeps_what_is_finished(folder, tiny_onnx, tmp_path):
    shutil.copy(folder / "00.jpg", folder / "lost.jpg")
    recipe, layout = recipe_of(tiny_onnx)
    with Dataset(tmp_path / "d", layout, {}) as dataset:
        dataset.list_inputs(Listing([str(folder / "00.jpg"), str(folder / "lost.jpg")] * 16), 16)
        with pytest.raises(EngineError, match=r"(?s)cannot be run any more.*RuntimeError: the device is gone.*goes on"):
            job.run(dataset, Odd(recipe), job.local_engine(1))  # type: ignore[arg-type]
    with Dataset(tmp_path / "d", layout, {}) as dataset:
        assert job.run(dataset, recipe, job.local_engine(1))["errors"] == 0
    assert len(rows(tmp_path / "d")) == 32


def recipe_of(model: Path) -> tuple[Recipe, Layout]:
    with cast_sdk.Runtime(model, threads=1) as runtime:
        layout = Layout.of(runtime, "0" * 64, GROUPS, tokens=False)
    return Recipe(layout, {"model": str(model), "threads": 1}), layout


def test_an_image_that_ends_its_process(folder, tiny_onnx, tmp_path):
    shutil.copy(folder / "00.jpg", folder / "deadly.jpg")
    recipe, layout = recipe_of(tiny_onnx)
    with Dataset(tmp_path / "d", layout, {}) as dataset:
        dataset.list_inputs(Listing([str(folder)]), 5)
        manifest = job.run(dataset, Fragile(recipe), job.local_engine(2))  # type: ignore[arg-type]
        assert manifest["errors"] == 1 and sum(dataset.ended().values()) == 2
    found = {Path(row["path"]).name: row for row in rows(tmp_path / "d")}
    assert len(found) == 13
    assert "ended the process that read it, 2 times" in found["deadly.jpg"]["error"]
    assert "SIGSEGV" in found["deadly.jpg"]["error"] and found["00.jpg"]["error"] is None


def test_how_levels_are_made_is_asked_for_and_does_not_change_within_a_data_set(stock, tmp_path):
    one = next(stock.rglob("00.jpg"))
    words = (one, "--workers", 1, "--only", "levels")
    for kind in ("merged", "assigned"):
        bulk(*words, "--out", tmp_path / kind, "--grouping", kind)
    merged, assigned = (rows(tmp_path / kind)[0] for kind in ("merged", "assigned"))
    assert merged != assigned
    bulk(*words, "--out", tmp_path / "merged")  # the model says so itself
    done = bulk(*words, "--out", tmp_path / "assigned", check=False)
    assert done.returncode == 1 and "grouping 'assigned' before" in done.stderr


def test_the_same_command_goes_on_and_another_is_refused(made, stock, tiny_onnx, tmp_path):
    whole = parts(made)
    made = shutil.copytree(made, tmp_path / "copy")
    words = (stock, "--out", made, "--model", tiny_onnx, "--part-rows", 5)
    (made / "part-000001.parquet").unlink()
    assert "7 of 12 are finished already" in bulk(*words, "--workers", 1).stderr
    assert parts(made) == whole
    done = bulk(*words[:-1], 6, check=False)
    assert (
        done.returncode == 1
        and "other inputs or settings" in done.stderr
        and "part_rows 5 before, 6 now" in done.stderr
    )
    (made / "part-000002.parquet").write_bytes(b"mine")
    done = bulk(*words, check=False)
    assert done.returncode == 1 and "not the part that belongs there" in done.stderr
    assert (made / "part-000002.parquet").read_bytes() == b"mine"


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "_inputs").write_text("words")
    with pytest.raises(InputError, match="holds other files"):
        Dataset(tmp_path / "mine", LAYOUT, {})
    assert (tmp_path / "mine" / "_inputs").read_text() == "words"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["_inputs"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "_manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"(?s)no manifest of cast-bulk.*choose another --out"):
        Dataset(tmp_path / "other", LAYOUT, {})
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["_manifest.json"]
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "._inputs.parquet.0abcde-99999.x.tmp").touch()  # killed while it listed the images
    with Dataset(tmp_path / "killed", LAYOUT, {}) as dataset:
        assert not dataset.listed
    with Dataset(tmp_path / "x", LAYOUT, {}), pytest.raises(InputError, match="Another process"):
        Dataset(tmp_path / "x", LAYOUT, {})


@pytest.mark.parametrize("content", [b"no Parquet", pa.schema([("a", pa.int32())])])
def test_a_spoiled_list_of_images_says_what_helps(tmp_path, content):
    path = tmp_path / "_inputs.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(content.empty_table(), path)
    with pytest.raises(ArtifactError, match="in another folder"):
        Parts(path)


LAYOUT = Layout("m", "0" * 64, (96, 96), "stretch", ("class",))


def test_killed_at_any_moment_the_same_command_goes_on(made, stock, tiny_onnx, tmp_path):
    out = tmp_path / "killed"
    words = [*BULK, str(stock), "--out", str(out), "--model", str(tiny_onnx), "--part-rows", "5", "--workers", "2"]
    for wanted in ("_inputs.parquet", "part-000001.parquet"):
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while not (out / wanted).exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()
    bulk(*words[len(BULK) :])
    assert parts(out) == parts(made)
    assert rows(out) == rows(made)


def test_a_full_disk_loses_nothing(made, stock, tiny_onnx, tmp_path):
    out = tmp_path / "full"
    words = (stock, "--out", out, "--model", tiny_onnx, "--part-rows", 5, "--workers", 1)
    smallest = min(len(data) for data in parts(made).values())

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (smallest - 1000, smallest - 1000))

    done = bulk(*words, check=False, preexec_fn=limit)
    assert done.returncode == 1 and "cannot be written" in done.stderr and "ulimit -f" in done.stderr
    assert not list(out.glob(".*")) and not parts(out)
    bulk(*words)
    assert parts(out) == parts(made)


def test_a_layout_of_the_future_is_refused():
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
