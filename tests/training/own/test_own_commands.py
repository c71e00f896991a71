"""cast-train from a folder to a file that runs, in small."""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from own_data import blob, write_classes, write_coco, write_image

import cast_sdk
from cast_sdk.models import create_model, save_native
from cast_sdk.training.commands.main import COMMANDS, main
from cast_sdk.training.engine.recipe.files import FOLDER
from cast_sdk.training.own.classes.finishing import SHEET
from cast_sdk.training.own.dense.base import split_of
from cast_sdk.training.own.dense.finding import find_masked
from tests.training.conftest import write_shards

SMALL = ["--image-size", "48", "--epochs", "1", "--set", "train.precision=fp32"]


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def documented(page, beginning, places):
    """The words of a command of a tutorial, with the folders of a test in place of the page's."""
    text = (Path(__file__).parents[3] / "docs" / "tutorials" / f"{page}.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith(beginning))
    return [str(places.get(word, word)) for word in shlex.split(line, comments=True)[1:]]


def refused(*arguments):
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A small model to start from."""
    spec = {"embed_dim": 48, "depths": (1, 1, 1, 1), "num_heads": 3, "image_size": 48, "clusters": (12, 6, 4, 2)}
    model = create_model("cast_tiny", num_classes=5, **spec)
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_native(model, path)
    return path


@pytest.fixture(scope="module")
def finished(start, tmp_path_factory):
    """A run of `classify` on four unequal classes: its data, its folder and what was said."""
    folder = tmp_path_factory.mktemp("run")
    counts = {"brick red": 24, "moss green": 60, "night blue": 40, "olive": 30}
    data = write_classes(folder / "my birds", counts)
    (data / "olive" / "torn.jpg").write_bytes((data / "olive" / "photo 00.jpg").read_bytes()[:200])
    out = folder / "my runs" / "birds"
    words = documented("classes", "cast-train classify birds --out", {"birds": data, "runs/birds": out})
    result = call(*words, "--model", start, "--on-bad-image", "skip", "--epochs", "2", *SMALL[:2])
    assert result.exit_code == 0, result.output
    return data, out, start


def test_help_is_quick_and_complete():
    text = call("--help").output
    assert all(name in text for name in COMMANDS)
    for name in COMMANDS:
        assert call(name, "--help").exit_code == 0
    code = "import sys; from cast_sdk.training.commands import main, classify, segment, pretrain, evaluate, recipes\n"
    code += "print([name for name in ('torch', 'cv2', 'numpy', 'yaml') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout and "cv2" not in done.stdout


def test_a_run_leaves_everything(finished):
    data, out, _ = finished
    names = {path.name for path in out.iterdir()}
    assert {"model.onnx", "model.safetensors", "report.html", "curve.png", "confusion.png", "split.csv",
            "predictions.csv", "recipe.yaml", "run.json", "checkpoint.pth", "log.jsonl"} <= names  # fmt: skip
    rows = list(csv.DictReader((out / "split.csv").open()))
    assert len(rows) == 154 and {row["split"] for row in rows} == {"train", "val"}
    judged = list(csv.DictReader((out / "predictions.csv").open()))
    assert [str(data / row["path"]) for row in judged] == [row["path"] for row in rows if row["split"] == "val"]
    page = (out / "report.html").read_text()
    assert "torn.jpg" in page and "rare classes are drawn more often" in page and "data:image/png;base64," in page
    wrong = [row for row in judged if row["class"] != row["predicted"]]
    assert all(f"<td>{row['path']}</td>" in page for row in wrong) or len(wrong) > SHEET
    assert f"--model {shlex.quote(str(out / 'model.onnx'))} --out segments" in unescape(page)  # a folder with a space


def test_the_exported_file_knows_the_classes_and_gives_the_same(finished):
    data, out, _ = finished
    judged = list(csv.DictReader((out / "predictions.csv").open()))
    with cast_sdk.Runtime(out / "model.onnx") as runtime:
        spec = runtime.spec
        assert spec.class_names == ("brick red", "moss green", "night blue", "olive")
        for row in judged[::7]:
            seg = runtime.segment(str(data / row["path"]))
            _, name, chance = seg.top(1)[0]
            assert name == row["predicted"] or chance < 0.5
            assert chance == pytest.approx(float(row["probability"]), abs=2e-3)
            assert seg.unsure == (chance < spec.unsure_below)
    right = np.mean([row["class"] == row["predicted"] for row in judged])
    places = {"more_birds": write_without_torn(data), "runs/birds/model.onnx": out / "model.onnx"}
    result = json.loads(call(*documented("classes", "cast-train evaluate", places), "--json").output)
    assert result["images"] == 154 and 0 < result["accuracy"] <= 100
    places = {"runs/birds/model.onnx": out / "model.safetensors", "runs/birds/split.csv": out / "split.csv"}
    words = documented("classes", "cast-train evaluate runs/birds/model.onnx runs/birds/split.csv", places)
    again = json.loads(call(*words, "--json").output)
    assert again["accuracy"] == pytest.approx(100 * right, abs=1e-6)


def write_without_torn(data):
    (data / "olive" / "torn.jpg").rename(data.parent / "torn.jpg")
    return data


def test_any_split_can_be_judged(tmp_path):
    with cast_sdk.Runtime() as runtime:
        model, names = str(runtime.path), runtime.spec.class_names[:2]
    for split, counts in {"train": (2, 1), "test": (1, 2)}.items():
        for name, count in zip(names, counts, strict=True):
            for number in range(count):
                write_image(tmp_path / split / name / f"{number}.jpg", blob(0, number))
    write_image(tmp_path / "train" / "unheard of" / "0.jpg", blob(0, 0))
    result = json.loads(call("evaluate", model, tmp_path, "--split", "test", "--json").output)
    assert result["images"] == 3 and [row["images"] for row in result["classes"].values()] == [1, 2]
    assert "unheard of" in refused("evaluate", model, tmp_path)
    torn = tmp_path / "test" / names[0] / "torn.jpg"
    torn.write_bytes((tmp_path / "test" / names[0] / "0.jpg").read_bytes()[:200])
    assert "torn.jpg" in refused("evaluate", model, tmp_path, "--split", "test")
    skipped = call("evaluate", model, tmp_path, "--split", "test", "--on-bad-image", "skip", "--json")
    assert json.loads(skipped.stdout)["images"] == 3 and "left out (1)" in json.loads(skipped.stdout)["notes"][-1]
    torn.unlink()
    message = refused("evaluate", model, tmp_path, "--split", "val")
    assert "no images of the split val" in message and "4 of train, 3 of test" in message
    assert "has no split" in refused("evaluate", model, tmp_path / "test", "--split", "test")


def test_another_run_is_refused_and_the_same_is_finished(finished):
    data, out, start = finished
    if not (data / "olive" / "torn.jpg").exists():
        (data.parent / "torn.jpg").rename(data / "olive" / "torn.jpg")
    same = ["classify", data, "--out", out, "--model", start, "--on-bad-image", "skip", "--epochs", "2", *SMALL[:2]]
    before = (out / "model.onnx").stat().st_mtime_ns
    assert call(*same).exit_code == 0
    assert (out / "model.onnx").stat().st_mtime_ns == before
    assert "schedule.epochs: 2 there, 3 now" in refused(*same[:-4], "--epochs", "3", *SMALL[:2])
    write_image(data / "olive" / "new.jpg", blob(3, 99))
    assert "not the same any more" in refused(*same)
    (data / "olive" / "new.jpg").unlink()


def test_what_is_refused_before_any_work(tmp_path, start):
    write_classes(tmp_path / "data", {"a": 2, "b": 2})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    assert "holds other files" in refused("classify", tmp_path / "data", "--out", tmp_path / "mine", "--model", start)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    (tmp_path / "data" / "a" / "bad.jpg").write_bytes(b"no image")
    said = refused("classify", tmp_path / "data", "--out", tmp_path / "new", "--model", start)
    assert "1 of 5 images cannot be read: a/bad.jpg" in said and "--on-bad-image skip" in said
    assert not (tmp_path / "new").exists()
    (tmp_path / "data" / "a" / "bad.jpg").unlink()
    write_classes(tmp_path / "single", {"a": 1, "b": 1})
    assert "single image" in refused("classify", tmp_path / "single", "--out", tmp_path / "new", "--model", start)
    assert call("classify", tmp_path / "data", "--out", tmp_path / "new", "--model", start, "--dry-run").exit_code == 0
    assert not (tmp_path / "new").exists()
    assert "lies inside of the data" in refused("classify", tmp_path / "data", "--out", tmp_path / "data" / "run")
    assert "A step takes 9 images" in refused(
        "classify", tmp_path / "data", "--out", tmp_path / "new", "--model", start, "--batch", "9"
    )


def test_an_interrupted_run_goes_on(tmp_path, start):
    data = write_classes(tmp_path / "data", {"a": 40, "b": 40})
    out = tmp_path / "run"
    arguments = ["classify", str(data), "--out", str(out), "--model", str(start), "--epochs", "300", *SMALL[:2]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "cast_sdk.training.commands.main", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 240
        while not (out / "log.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=240)[0]
    assert process.returncode == 130, said
    assert "the same command resumes" in said
    assert (out / "checkpoint.pth").is_file() and not (out / "report.html").exists()
    assert "schedule.epochs: 300 there, 1 now" in refused(*arguments[:-3], "1", *SMALL[:2])


def test_a_taxonomy(tmp_path, start):
    data = write_classes(tmp_path / "data", {"crow": 8, "jay": 8, "tern": 8})
    table = tmp_path / "tree.csv"
    table.write_text("species,family\ncrow,corvids\njay,corvids\ntern,gulls\n")
    out = tmp_path / "run"
    result = call("classify", data, "--out", out, "--model", start, "--taxonomy", table, *SMALL)
    assert result.exit_code == 0, result.output
    seg = cast_sdk.Runtime(out / "model.onnx").segment(str(data / "crow" / "photo 00.jpg"))
    assert {name for _, name, _ in seg.top(5, level="family")} == {"corvids", "gulls"}
    table.write_text("species,family\ncrow,corvids\njay,corvids\n")
    said = refused("classify", data, "--out", tmp_path / "other", "--model", start, "--taxonomy", table, *SMALL)
    assert "1 missing in the table: tern" in said


def test_shards(tmp_path, start):
    for shard in write_shards(tmp_path / "data", train=6).glob("val-*.tar"):
        shard.unlink()
    out = tmp_path / "run"
    result = call("classify", tmp_path / "data", "--out", out, "--model", start, *SMALL)
    assert result.exit_code == 0, result.output
    judged = list(csv.DictReader((out / "predictions.csv").open()))
    again = json.loads(call("evaluate", out / "model.onnx", out / "split.csv", "--split", "val", "--json").stdout)
    assert again["images"] == len(judged) == 4
    assert again["accuracy"] == 100 * np.mean([row["class"] == row["predicted"] for row in judged])
    for shard in (tmp_path / "data").glob("*-01.tar"):
        shard.unlink()
    assert "are not in" in refused("evaluate", out / "model.onnx", out / "split.csv")


def test_segment(tmp_path, start):
    write_coco(tmp_path / "shapes", 8, "runs")
    out = tmp_path / "run"
    words = documented("masks", "cast-train segment roads", {"roads": tmp_path / "shapes", "runs/roads": out})
    arguments = [*words, "--model", start, "--epochs", "1", "--batch", "3"]
    result = call(*arguments, "--image-size", "96")
    assert result.exit_code == 0, result.output
    names = {path.name for path in out.iterdir()}
    assert {"model.onnx", "model.safetensors", "report.html", "examples.jpg", "worst.jpg", "split.csv"} <= names
    seg = cast_sdk.Runtime(out / "model.onnx").segment(str(tmp_path / "shapes" / "images" / "0.png"))
    assert seg.semantic.shape == (96, 128) and seg.class_name(1) == "box"
    masked = find_masked(tmp_path / "shapes")
    assert "model: " not in refused(*arguments, "--image-size", "128")
    judge = documented(
        "masks", "cast-train evaluate", {"runs/roads/model.onnx": out / "model.onnx", "more_roads": tmp_path / "shapes"}
    )
    result = json.loads(call(*judge, "--json").output)
    right = [
        (cast_sdk.Runtime(out / "model.onnx").segment(image[..., ::-1].copy()).semantic == label)[label != 255]
        for image, label in (split_of(masked, np.arange(len(masked))).read(at) for at in range(len(masked)))
    ]
    assert result["images"] == 8 and result["pixel_accuracy"] == pytest.approx(100 * np.concatenate(right).mean())
    ious = [row["iou"] for row in result["classes"].values() if row["iou"] is not None]
    assert result["mean_iou"] == pytest.approx(np.mean(ious)) and set(result["classes"]) == set(masked.class_names)
    assert "mean IoU" in call(*judge).output
    assert "RUN/split.csv" in refused(*judge, "--split", "val")
    places = {"runs/roads/model.onnx": out / "model.onnx", "runs/roads/split.csv": out / "split.csv"}
    words = documented("masks", "cast-train evaluate runs/roads/model.onnx runs/roads/split.csv", places)
    of_val = call(*words, "--json")
    report = (out / "report.html").read_text()
    assert (
        f"mean IoU {json.loads(of_val.output)['mean_iou']:.1f} %" in report and json.loads(of_val.output)["images"] == 2
    )
    (tmp_path / "shapes" / "images" / "0.png").rename(tmp_path / "0.png")
    (tmp_path / "shapes" / "images" / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:100])
    assert "0.png" in refused(*judge)
    skipped = json.loads(call(*judge, "--on-bad-image", "skip", "--json").stdout)
    assert skipped["images"] == 7 and "unreadable images are left out (1): images/0.png" in skipped["notes"]
    (tmp_path / "0.png").rename(tmp_path / "shapes" / "images" / "0.png")
    foreign = write_classes(tmp_path / "classes", {"a": 1}) / "split.csv"
    foreign.write_text("path,class,split\n")
    assert "is not the split of a run of cast-train segment" in refused("evaluate", out / "model.onnx", foreign)
    ignoring = json.loads(call(*judge, "--unlabelled", "ignore", "--json").output)
    assert ignoring["classes"]["background"]["pixels"] == 0
    model = str(cast_sdk.Runtime().path)
    assert "--unlabelled is for masks" in refused("evaluate", model, tmp_path / "shapes", "--unlabelled", "ignore")


def test_pretrain_then_classify(tmp_path):
    photos = write_classes(tmp_path / "photos", {"any": 6, "other": 6})
    write_image(photos / "flat.jpg", blob(0, 50))
    out = tmp_path / "pre"
    small = ["--set", "moco.hidden_dim=32", "--set", "moco.feature_dim=16", "--set", "train.precision=fp32"]
    result = call("pretrain", photos, "--out", out, "--epochs", "1", "--batch", "6", *small)
    assert result.exit_code == 0, result.output
    assert "1 epochs of 13 training images, 6 a step, at 48 x 48 pixels" in result.output
    labelled = write_classes(tmp_path / "labelled", {"a": 4, "b": 4})
    plan = call("classify", labelled, "--out", tmp_path / "run", "--model", out / "checkpoint.pth.tar", "--dry-run")
    assert plan.exit_code == 0, plan.output
    assert "fewer than a batch" in refused("pretrain", labelled, "--out", tmp_path / "none")


def test_recipes_of_ones_own_are_printed(tmp_path):
    (tmp_path / "mine.yaml").write_text((FOLDER / "tiny_moco.yaml").read_text())
    assert call("recipes", tmp_path / "mine.yaml").output == (FOLDER / "tiny_moco.yaml").read_text()


def test_recipes():
    listed = call("recipes").output
    assert "tiny_moco" in listed and "deit_cast_small" in listed
    assert call("recipes", "tiny_moco").output.startswith("program: pretrain")
    assert "no recipe 'tiny_mocco'" in refused("recipes", "tiny_mocco")
