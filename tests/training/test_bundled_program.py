"""training/bundled.py from a packed file to a calibrated model, with small sizes on the CPU."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from cast_sdk.models import load_model
from cast_sdk.training import bundled
from cast_sdk.training.data import region_file
from cast_sdk.training.data.prepare import packing
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.data.teacher import soft_labels
from cast_sdk.training.engine import chain
from cast_sdk.training.engine.distributed import has_gpu
from cast_sdk.training.engine.recipe.files import load_recipe


@pytest.fixture(scope="module")
def packed(shards, tmp_path_factory):
    """The data set of other tests with a teacher, regions and a split to test with, packed."""
    folder = tmp_path_factory.mktemp("packed")
    data = shutil.copytree(shards, folder / "data")
    shutil.copy(data / "val-00.tar", data / "tiny-00.tar")
    labels = open_source(data, "train").labels
    np.save(data / soft_labels.FILE, (4 * np.eye(4)[labels]).astype(np.float16))
    rng = np.random.default_rng(0)
    maps = np.repeat(np.repeat(rng.integers(0, 4, (6, 4, 4, 4)), 12, 2), 12, 3).astype(np.uint8)
    region_file.write_regions(data / region_file.FILE, rng.integers(0, 256, (6, 48, 48, 3), np.uint8), maps)
    packing.pack(data, folder / "set.tar.xz", 10**7, packing.Packing(tests=8))
    return folder / "set.tar.xz"


@pytest.fixture(scope="module")
def photographs(folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(24):
        shutil.copy(
            folders / "train" / f"class{number % 4}" / f"{number // 4:03d}.jpg",
            folder / f"{number:03d}_{f'n{number % 4}' if number % 3 else 'n99'}.jpg",
        )
    return folder


@pytest.fixture(scope="module")
def bsds(data_dir, tmp_path_factory):
    """One image of BSDS500 in its layout."""
    home = tmp_path_factory.mktemp("BSDS500") / "data"
    for kind, suffix in (("images", "jpg"), ("groundTruth", "mat")):
        (home / kind / "val").mkdir(parents=True)
        shutil.copy(min((data_dir / "bsds500" / kind / "val").glob(f"*.{suffix}")), home / kind / "val")
    return home.parent


@pytest.fixture(scope="module")
def recipe(micro, tmp_path_factory):
    """The recipe of other tests with both further losses; it ends by steps, as no clock is to decide a test."""
    values = yaml.safe_load(micro.read_text())
    values["teacher"], values["levels"] = {"weight": 0.5}, {"weight": 0.5, "batch": 2}
    path = tmp_path_factory.mktemp("recipe") / "micro.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(*arguments):
    return CliRunner().invoke(bundled.main, [str(argument) for argument in arguments])


def test_from_a_packed_file_to_a_model(packed, photographs, bsds, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    arguments = ["--data", packed, "--out", out, "--recipe", recipe, "--minutes", 60, "--device", "cpu",
                 "--finish", recipe, "--set", "schedule.minutes=null", "--set", "schedule.steps=8",
                 "--photographs", photographs, "--bsds", bsds]  # fmt: skip
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    found = json.loads((out / "results.json").read_text())
    assert not found["left out"] and not found["failed"]
    assert found["training"]["images"] == found["finishing"]["images"] == 64
    assert found["data"] == packing.summary(packing.record_of(out / "data"))
    assert found["tiny"]["images"] == 8 and 0 <= found["tiny"]["top1"] <= found["tiny"]["top5"] == 100
    assert len(found["levels"]["covering"]) == 4 and found["levels"]["images"] == 1
    model = load_model(out / "cast_tiny.safetensors")
    calibration = found["calibration"]
    assert (model.spec.temperature, model.spec.unsure_below) == (
        calibration["temperature"],
        calibration["unsure_below"],
    )
    assert calibration["known_photographs"] == 16
    for name, start in (("README.md", b"# cast_tiny"), ("curve.png", b"\x89PNG"), ("results.md", b"| |")):
        assert (out / name).read_bytes().startswith(start)
    assert (out / "results.md").read_text() in result.output
    assert all((out / name / "best_checkpoint.pth").exists() for name in ("run", "finish"))

    # The same command does what there was no time for, and nothing else.
    steps = json.loads((out / "steps.json").read_text())
    del steps["steps"]["tiny"]
    (out / "steps.json").write_text(json.dumps(steps))
    before = (out / "cast_tiny.safetensors").stat().st_mtime_ns
    again = run(*arguments)
    assert again.exit_code == 0 and again.output.count("done before") == 5, again.output
    assert json.loads((out / "results.json").read_text())["tiny"]["top1"] == found["tiny"]["top1"]
    assert (out / "cast_tiny.safetensors").stat().st_mtime_ns == before

    other = run(*arguments, "--set", "optimizer.lr=1.0e-4")
    assert other.exit_code == 1 and "is the folder of another run" in other.output


def test_a_step_that_fails_leaves_out_the_others_and_says_so(packed, recipe, tmp_path):
    arguments = ["--data", packed, "--out", tmp_path / "out", "--recipe", recipe, "--device", "cpu"]
    result = run(*arguments, "--set", "train.batch=4096")
    assert result.exit_code == 1 and "1 steps failed: training" in result.output
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["failed"] == {"training": "ended with exit code 1"}
    left_out = {"weights": "without training", "calibration": "without weights", "tiny": "without calibration"}
    assert found["left out"] == left_out


def test_nothing_is_made_of_a_half_trained_model(tmp_path):
    (tmp_path / "tiny-00.tar").touch()
    after = {"weights": ["training"], "calibration": ["weights"], "tiny": ["calibration"], "levels": ["calibration"]}
    finished = {**after, "finishing": ["training"], "weights": ["finishing"]}
    for parts, expected in (([[]], after), ([[], []], finished)):
        found = list(bundled.steps(tmp_path, tmp_path / "out", "cast_tiny", parts, [], None, tmp_path))
        assert {step.name: list(step.after) for step in found} == {"training": [], **expected}
        assert chain.followers(found[0], found) == found[1:]
    words = list(map(str, found[1].words))
    planned = load_recipe("tiny_bundled_128", [words[words.index("--set") + 1]], "supervised")
    assert planned.model.init == str(tmp_path / "out" / "run" / "best_checkpoint.pth")
    assert str(tmp_path / "out" / "finish") in words and str(tmp_path / "out" / "finish") in map(str, found[2].words)


def test_a_training_that_has_not_finished_gives_nothing(tmp_path):
    start = {"kind": "start", "recipe": {"train": {"batch": 8}}}
    stopped = {"kind": "end", "finished": False, "seconds": 20}
    for entries in ([], [start], [start, stopped], [start, {"kind": "validation", "step": 3}, stopped]):
        (tmp_path / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        assert bundled.trained(tmp_path) is None
    resumed = [start, {"kind": "validation", "step": 30}, {"kind": "end", "finished": True, "seconds": 60}]
    with (tmp_path / "log.jsonl").open("a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in resumed)
    assert bundled.trained(tmp_path) == {"images": 240, "training_seconds": 60, "images_per_second": 4}


def test_minutes_that_no_process_can_be_waited_for_are_refused(packed, tmp_path):
    result = run("--data", packed, "--out", tmp_path / "out", "--minutes", 36_000)
    assert result.exit_code == 2 and "0<x<=30000" in result.output and not (tmp_path / "out").exists()


def test_a_gpu_is_found_without_being_opened(packed, tmp_path, monkeypatch):
    def opened(*_):
        pytest.fail("a context on the GPU, which the programs may need alone")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", opened)
    monkeypatch.setattr(torch.cuda, "_lazy_init", opened)
    ran = []

    def chained(self, steps):
        ran.extend(steps)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")  # once they have ended

    monkeypatch.setattr(chain.Chain, "run", chained)
    result = run("--data", packed, "--out", tmp_path / "gpu", "--device", "auto")
    assert result.exit_code == 0 and "| machine | a GPU" in result.output, result.output
    assert f"train.batch={bundled.GPU_BATCH}" in ran[0].words and "cuda" in ran[0].words

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run("--data", packed, "--out", tmp_path / "none", "--device", "cuda")
    assert result.exit_code == 1 and "There is no CUDA GPU for --device cuda." in result.output
    assert not has_gpu("auto") and not (tmp_path / "none").exists()


def test_folders_of_others_stay(packed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    result = run("--data", packed, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "holds other files" in result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_of_the_minutes_a_part_goes_to_training(packed, bsds, tmp_path, monkeypatch):
    """And what there is no time for is left out by name, after the training has had its own."""
    ran = []
    monkeypatch.setattr(chain.Chain, "run", lambda self, steps: ran.extend((step, self.end) for step in steps))
    names = ["training", "finishing", "weights", "calibration", "tiny", "levels"]
    with_finish = ["--finish", "tiny_bundled_128"]
    for name, options, minutes in (
        ("plain", [], (9,)),
        ("levels", ["--bsds", bsds], (7.2,)),
        ("finish", with_finish, (6, 3)),
        ("both", [*with_finish, "--bsds", bsds], (4.8, 2.4)),
    ):
        ran.clear()
        before = time.monotonic()
        result = run("--data", packed, "--out", tmp_path / name, "--minutes", 12, "--device", "cpu", *options)
        assert result.exit_code == 0, result.output
        for (step, end), recipe, own in zip(ran, ("tiny_bundled", "tiny_bundled_128"), minutes, strict=False):
            words = list(map(str, step.words))
            assert f"schedule.minutes={own:g}" in words and recipe in words and before <= end - 720 <= time.monotonic()
        expected = [step for step in names if step != "finishing" or len(minutes) > 1]
        assert [step.name for step, _ in ran] == expected[: len(ran)]
        assert len(ran) == 3 + len(minutes) + ("--bsds" in options)


def test_a_recipe_to_finish_with_that_is_not_there(packed, tmp_path):
    result = run("--data", packed, "--device", "cpu", "--finish", "no_such_recipe", "--out", tmp_path / "none")
    assert result.exit_code == 1 and "no_such_recipe" in result.output and not (tmp_path / "none").exists()


def test_the_table_names_what_was_left_out():
    calibration = {"seconds": 9, "temperature": 1.5, "ece_before": 0.1, "ece_after": 0.02, "images": 50}
    left_out = {"levels": "the time was over"}
    report = {
        "machine": "a GPU", "data": "all", "calibration": calibration, "left out": left_out, "failed": {"tiny": "why"}
    }  # fmt: skip
    training = {
        "seconds": 7,
        "training_seconds": 90,
        "images": 900,
        "images_per_second": 10,
    }  # the last of two sessions
    text = bundled.table({**report, "training": training})
    assert "| training | 900 images in 1.5 minutes, 10 images/s |" in text
    assert "| left out: levels | the time was over |" in text
    assert "| failed: tiny | why |" in text
    assert "temperature 1.50, calibration error 10.0 % before, 2.0 % after, 50 held-out images (9 s)" in text
