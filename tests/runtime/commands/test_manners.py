"""What commands do with unusual words, and what they say again."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

import cv2
import pytest
from click.testing import CliRunner

import cast_sdk
from cast_sdk.errors import InputError
from cast_sdk.runtime.camera.meter import Meter
from cast_sdk.runtime.commands import bench, camera, doctor, segment
from cast_sdk.runtime.commands.segment_images import expand
from cast_sdk.runtime.runtime import Runtime

COMMANDS = [segment.main, bench.main, camera.main, doctor.main]


def run(*words, command=segment.main):
    return CliRunner().invoke(command, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path, photo):
    (tmp_path / "shots").mkdir()
    for name in ("one", "two"):
        cv2.imwrite(str(tmp_path / "shots" / f"{name}.jpg"), photo)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.callback.__module__)
def test_version(command):
    assert run("--version", command=command).output.endswith(f"cast-sdk {cast_sdk.__version__}\n")


def test_the_package_runs_its_commands():
    words = [sys.executable, "-m", "cast_sdk"]
    done = subprocess.run([*words, "segment", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and cast_sdk.__version__ in done.stdout
    assert "segment" in subprocess.run(words, capture_output=True, text=True).stdout
    wrong = subprocess.run([*words, "segmnt"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "segmnt" in wrong.stderr


def test_quiet_and_verbose_set_the_level_of_logging(folder, tiny_onnx):
    log = logging.getLogger("cast_sdk")
    for flag, level in (("-q", logging.WARNING), ("-v", logging.DEBUG)):
        done = run(folder / "shots", "-m", tiny_onnx, "-o", folder / f"out{flag}", flag)
        assert done.exit_code == 0, done.output
        assert log.level == level
    assert run(folder / "shots", "-m", tiny_onnx, "-o", folder / "out-q").exit_code == 0
    assert log.level == logging.INFO


def test_one_image_to_one_picture(folder, tiny_onnx):
    picture = folder / "levels.png"
    words = [folder / "shots" / "one.jpg", "-m", tiny_onnx, "-o", picture]
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    assert cv2.imread(str(picture)) is not None and json.loads(picture.with_suffix(".json").read_text())["size"]
    assert not (folder / "cast-segment.jsonl").exists()
    again = run(*words)
    assert again.exit_code == 1 and "is there already" in again.output
    assert run(*words, "--overwrite").exit_code == 0
    source = folder / "shots" / "one.jpg"
    kept = source.read_bytes()
    assert run(source, "-m", tiny_onnx, "-o", source, "--overwrite").exit_code == 1
    assert source.read_bytes() == kept
    both = run(folder / "shots", "-m", tiny_onnx, "-o", folder / "other.png")
    assert both.exit_code == 1 and "2 images" in both.output


def test_patterns_standard_input_and_addresses(folder):
    assert [path.name for path in expand(str(folder / "shots" / "*.jpg"))] == ["one.jpg", "two.jpg"]
    (folder / "shots" / "a[1].jpg").write_bytes(b"")
    assert [path.name for path in expand(folder / "shots" / "a[1].jpg")] == ["a[1].jpg"]
    for word, what in (
        ("-", "standard input"),
        ("https://x.example/a.jpg", "address"),
        ("no/*.png", "Nothing matches"),
    ):
        with pytest.raises(InputError, match=what):
            expand(word)


def test_a_finished_run_shows_its_results(folder, tiny_onnx):
    words = [folder / "shots" / "one.jpg", "-m", tiny_onnx, "-o", folder / "out", "--json"]
    first, second = run(*words), run(*words)
    assert first.exit_code == second.exit_code == 0
    assert "finished already" in second.output and str(folder / "out" / "one.png") in second.output
    classes = [line for line in first.output.splitlines() if "%" in line]
    assert [line for line in second.output.splitlines() if "%" in line] == classes


def test_refused_before_a_model_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(camera, "open_runtime", lambda *_: pytest.fail("a model was loaded"))
    assert run("test://", "--serve", "nonsense", command=camera.main).exit_code == 1
    both = run("test://", "--headless", "--show", command=camera.main)
    assert both.exit_code == 1 and "--headless" in both.output


def test_a_recording_without_a_window(folder, tiny_onnx):
    film = folder / "film.avi"
    done = run("test://", "-m", tiny_onnx, "--headless", "--record", film, "--frames", 3, command=camera.main)
    assert done.exit_code == 0, done.output
    assert film.stat().st_size > 1000


def test_bursts_do_not_make_a_frame_rate(monkeypatch, tiny_onnx, photo):
    now = [100.0]
    monkeypatch.setattr("cast_sdk.runtime.camera.meter.time.monotonic", lambda: now[0])
    with Runtime(tiny_onnx) as runtime:
        result = runtime.segment(photo)
    meter = Meter()
    for _ in range(30):  # ten results at once, three times a second
        for _ in range(10):
            meter.add(result)
            now[0] += 1e-5
        if now[0] - meter.started < 0.2:
            assert meter.rate() == 0
        now[0] += 1 / 3
    assert meter.rate() == pytest.approx(30, rel=0.2)


def test_a_result_in_a_notebook(tiny_onnx, photo):
    with Runtime(tiny_onnx) as runtime:
        result = runtime.segment(photo)
    text = repr(result)
    assert "320 x 240" in text and len(text) < 200
    data = result._repr_png_()
    assert data.startswith(b"\x89PNG") and io.BytesIO(data).getbuffer().nbytes > 1000
    result.frame = None
    assert result._repr_png_() is None
