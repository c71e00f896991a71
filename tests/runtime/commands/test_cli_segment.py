"""cast-segment as people run it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from cast_sdk.errors import InputError
from cast_sdk.runtime.commands.results import Results
from cast_sdk.runtime.commands.segment_images import gather, plan


@pytest.fixture
def folder(tmp_path, photo) -> Path:
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    for name in ("a.jpg", "a.png", "deep/b.jpg"):
        cv2.imwrite(str(images / name), photo)
    (images / "notes.txt").write_text("not an image")
    return images


@pytest.fixture
def run(tiny_onnx, tmp_path):
    def call(*arguments: object, model: Path = tiny_onnx) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "cast_sdk.runtime.commands.segment",
            *map(str, arguments),
            "--model",
            str(model),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)

    return call


def outputs(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_one_image(run, folder, tmp_path):
    done = run(folder / "a.jpg", "--json", "--level", 2)
    assert done.returncode == 0, done.stderr
    assert "segments, fine to coarse:" in done.stdout and "milliseconds: decode" in done.stdout
    assert outputs(tmp_path / "segments") == ["a.json", "a.png", "cast-segment.jsonl"]
    assert cv2.imread(str(tmp_path / "segments" / "a.png")).shape == (240, 320, 3)
    assert json.loads((tmp_path / "segments" / "a.json").read_text())["source"].endswith("a.jpg")


def test_an_unsure_model_leads_with_the_segments(run, folder, tmp_path, build_onnx, tiny_spec):
    spec = dataclasses.replace(tiny_spec, unsure_below=1.0, temperature=2.0)
    done = run(folder / "a.jpg", model=build_onnx(tmp_path / "unsure.onnx", spec=spec))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("segments, fine to coarse:") and lines[1].startswith("no name it is sure of")
    assert sum("thing" in line for line in lines) == 3


def test_a_folder_with_a_broken_file_then_again(run, folder, tmp_path):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 half a picture")
    done = run(folder, "--out", "out")
    assert done.returncode == 1
    assert "3 of 4 segmented" in done.stdout
    assert done.stderr.count("error:") == 1 and "broken.jpg" in done.stderr and "Traceback" not in done.stderr
    expected = ["a.png", "a_png.png", "cast-segment.jsonl", "deep/b.png"]
    assert outputs(tmp_path / "out") == expected

    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in expected[:2]}
    (folder / "broken.jpg").unlink()
    cv2.imwrite(str(folder / "deep" / "b.jpg"), cv2.imread(str(folder / "a.png"))[::-1])  # another photograph
    os.utime(folder / "deep" / "b.jpg", (0, 0))
    done = run(folder, "--out", "out")
    assert done.returncode == 0
    assert "2 of 3 are finished already" in done.stdout and "1 of 1 segmented" in done.stdout
    assert times == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in times}


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT as a terminal does, which Windows has not")
def test_interrupted_work_goes_on_where_it_stopped(run, folder, tiny_onnx, tmp_path, photo):
    for number in range(300):
        (folder / f"n{number}.png").write_bytes((folder / "a.png").read_bytes())
    command = [sys.executable, "-m", "cast_sdk.runtime.commands.segment", str(folder), "--model", str(tiny_onnx)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "segments").glob("n*.png"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors
    made = [name for name in outputs(tmp_path / "segments") if name.endswith(".png")]
    assert len(made) < 300 and not list((tmp_path / "segments").glob(".*.tmp"))
    for number in range(20, 300):
        (folder / f"n{number}.png").unlink()
    left = len([name for name in made if not (name[0] == "n" and int(name[1:-4]) >= 20)])
    done = run(folder)
    # The one that was interrupted may stand there whole and not be recorded yet: it is made again.
    assert done.returncode == 0
    assert any(f"{count} of 23 are finished already" in done.stdout for count in (left, left - 1))


def test_other_settings_do_not_mix(run, folder, tmp_path):
    assert run(folder / "a.jpg").returncode == 0
    done = run(folder / "a.jpg", "--fit", "crop")
    assert done.returncode == 1 and "fit 'stretch' before, 'crop' now" in done.stderr
    assert run(folder / "a.jpg", "--fit", "crop", "--overwrite").returncode == 0


def test_levels_are_made_as_asked_and_kinds_do_not_mix(run, folder, tmp_path):
    from cast_sdk import bundled

    def made(*options, out):
        done = run(folder / "a.jpg", "--json", "--out", out, *options, model=bundled.path(bundled.MODEL))
        return done, json.loads((tmp_path / out / "a.json").read_text())["levels"] if done.returncode == 0 else None

    _, merged = made(out="merged")
    done, same = made("--grouping", "merged", out="merged")
    assert done.returncode == 0, done.stderr  # what the model says has no place among the settings
    assert same == merged
    assert made("--grouping", "assigned", out="assigned")[1] != merged
    refused, _ = made("--grouping", "assigned", out="merged")
    assert refused.returncode == 1 and "now" in refused.stderr and "'assigned'" in refused.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["missing.jpg"], "There is no file or folder missing.jpg"),
        (["images/a.jpg", "--level", "7"], "no level 7"),
        (["images/a.jpg", "--precision", "bf16"], "has no option precision"),
        (["images/a.jpg", "--grouping", "merged"], "cannot be merged"),
        (["empty"], "There are no images in empty"),
        (["images/a.jpg", "--out", "images/notes.txt"], "images/notes.txt is a file"),
    ],
)
def test_what_cannot_be_done(run, folder, tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    before = outputs(tmp_path)
    done = run(*arguments)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
    assert outputs(tmp_path) == before


def test_a_model_that_is_none(run, folder):
    done = run(folder / "a.jpg", model=folder / "a.png")
    assert done.returncode == 1 and "does not have the suffix of a model file" in done.stderr


def test_names_never_collide(tmp_path):
    for name in ("x/a.jpg", "x/a.jpeg", "y/a.jpg", "y/A.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    inputs = gather([tmp_path / "x", tmp_path / "y", tmp_path / "x" / "a.jpg"], set())
    with Results(tmp_path / "out", {}) as results:
        jobs = plan(inputs, results, data=True)
    written = [str(path).lower() for job in jobs for path in job.outputs]
    assert len(jobs) == 4 and len(set(written)) == len(written) == 8
    with pytest.raises(InputError, match="nothing to segment"):
        gather([], set())


def test_what_a_folder_holds_besides_images_is_named(run, folder, tmp_path):
    (folder / "._a.jpg").write_bytes(b"what a Mac leaves behind")
    (folder / "lost.jpg").symlink_to(tmp_path / "nowhere")
    (folder / "later").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / "a.png").rename(tmp_path / "elsewhere" / "no suffix")
    (tmp_path / "elsewhere" / "back").symlink_to(folder, target_is_directory=True)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    for words in ("neither image nor video (1): notes.txt", "hidden files and folders (1)", "lead nowhere (1)"):
        assert words in done.stderr
    assert outputs(tmp_path / "segments") == ["a.png", "cast-segment.jsonl", "deep/b.png", "later/no suffix.png"]


def test_files_of_the_user_are_never_replaced(run, folder, tmp_path):
    (tmp_path / "b.png").write_bytes((folder / "deep" / "b.jpg").read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*g")}
    for arguments in (
        ["images/deep/b.jpg"],
        ["b.png"],
        ["images"],
        ["b.png", "--overwrite"],
        ["images", "-o", "images"],
    ):
        done = run("--out", ".", *arguments)
        assert done.returncode == 0, done.stderr
        assert before == {path: path.read_bytes() for path in before}
    again = run("--out", ".", "images")
    assert again.returncode == 0 and "are finished already" in again.stdout and "wrote" not in again.stdout


def test_processes_write_what_one_writes_and_pictures_can_be_left_out(run, folder, tmp_path):
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:500])
    for name, words in (("one", ()), ("two", ("--workers", 2))):
        done = run(folder, "--json", "--out", name, *words)
        assert done.returncode == 1 and "broken.jpg" in done.stderr and "3 of 4 segmented" in done.stdout
    one, two = tmp_path / "one", tmp_path / "two"
    assert outputs(one) == outputs(two)
    for name in outputs(one):
        if name.endswith(".png"):
            assert (one / name).read_bytes() == (two / name).read_bytes()
        if name.endswith(".json"):
            texts = [json.loads((place / name).read_text()) | {"timing_ms": None} for place in (one, two)]
            assert texts[0] == texts[1]
    assert "3 of 4 are finished already" in run(folder, "--json", "--out", "two", "--workers", 2).stdout
    done = run(folder, "--no-pictures", "--out", "data", "--workers", 2)
    assert outputs(tmp_path / "data") == ["a.json", "a_png.json", "cast-segment.jsonl", "deep/b.json"]
    done = run(folder, "--no-pictures", "--out", "x.png")
    assert done.returncode == 1 and "--no-pictures writes none" in done.stderr
