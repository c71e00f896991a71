"""cast-camera as a person runs it: every kind of source and output, and every way to end it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from standin import StandIn

import cast_sdk
from cast_sdk.errors import MissingDependencyError
from cast_sdk.runtime.camera import sinks as camera
from cast_sdk.runtime.commands.camera import main
from cast_sdk.runtime.commands.segment import main as segment
from cast_sdk.runtime.output.recorder import Recorder, read_records
from cast_sdk.runtime.sources.base import Status

COMMAND = [sys.executable, "-m", "cast_sdk.runtime.commands.camera"]
QUIET = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
SCENE = "test://?width=160&height=120&rate=30"


def run(*arguments, model=None, timeout=60) -> subprocess.CompletedProcess:
    model = ["--model", str(model)] if model else []
    return subprocess.run(
        [*COMMAND, *map(str, arguments), *model], capture_output=True, text=True, timeout=timeout, env=QUIET
    )


class Running:
    """cast-camera in the background; `line` waits for text on its standard error."""

    def __init__(self, *arguments, model, env=None):
        command = [*COMMAND, *map(str, arguments), "--model", str(model)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**QUIET, **(env or {})})
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def line(self, pattern, seconds=20):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found
            time.sleep(0.02)
        raise AssertionError(f"{pattern!r} did not appear in {self.lines}")

    def end(self, number=signal.SIGINT) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.reader.join()
            self.process.stderr.close()


def test_headless_counts_and_ends(tiny_onnx):
    done = run(SCENE + "&count=20", "--headless", model=tiny_onnx)
    assert done.returncode == 0, done.stderr
    assert "camera is live" in done.stderr and "fps" in done.stderr
    assert re.search(r"\d+ frames in [\d.]+ s, \d+ dropped", done.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly_and_finish_the_recording(tiny_onnx, tmp_path, number):
    film = tmp_path / "out.mp4"
    running = Running(SCENE, "--record", film, "--level", 3, model=tiny_onnx)
    running.line("fps")
    time.sleep(1)  # the first line comes with the first frame; the scene has thirty a second
    assert not film.exists(), "the recording has no name before it is complete"
    assert running.end(number) == 0, running.lines
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "out.mp4"]
    header, records = read_records(tmp_path / "out.jsonl")
    records = list(records)
    assert header["level"] == 3 and len(records) > 1 and records[0]["size"] == [120, 160]
    capture = cv2.VideoCapture(str(film))
    assert capture.read()[0]


def test_impatient_signals_lose_no_recording(tiny_onnx, tmp_path):
    film = tmp_path / "out.mp4"
    running = Running(SCENE, "--record", film, model=tiny_onnx)
    running.line("fps")
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        running.process.send_signal(number)
        time.sleep(0.05)
    assert running.process.wait(60) == 0, running.lines
    assert running.end() == 0
    assert running.line("wrote .*out.mp4 and .*out.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "out.mp4"]
    records = list(read_records(tmp_path / "out.jsonl")[1])
    capture = cv2.VideoCapture(str(film))
    count = 0
    while capture.read()[0]:
        count += 1
    assert count == records[-1]["video_frame"] + 1


def test_a_recording_without_a_frame_is_not_said_to_be_written(tiny_onnx, tmp_path):
    running = Running("v4l2:///dev/video97", "--wait", "--record", tmp_path / "out.mp4", model=tiny_onnx)
    running.line("attempt 2")  # the loop runs by then
    assert running.end() == 1, running.lines
    assert running.line("no frame came before the end, so .*out.mp4 was not written")
    assert not any("wrote" in line for line in running.lines) and not list(tmp_path.iterdir())


def test_files_and_folders_are_recorded_frame_by_frame(tiny_onnx, tmp_path):
    shots = tmp_path / "shots"
    shots.mkdir()
    for i in range(5):
        cv2.imwrite(str(shots / f"{i}.png"), np.full((48, 64, 3), 40 * i, np.uint8))
    done = run(shots, "--record", tmp_path / "out.avi", model=tiny_onnx)
    assert done.returncode == 0, done.stderr
    assert [r["frame"] for r in read_records(tmp_path / "out.jsonl")[1]] == [0, 1, 2, 3, 4]
    again = run(tmp_path / "out.avi", "--headless", "--frames", 3, model=tiny_onnx)
    assert again.returncode == 0 and "3 frames in" in again.stderr


@pytest.mark.parametrize("option", ["--track", "--no-track"])
def test_segments_are_followed_unless_it_is_declined(tiny_onnx, tmp_path, option):
    scene = "test://?width=64&height=48&rate=0&count=3"
    done = run(scene, "--record", tmp_path / "out.mp4", option, model=tiny_onnx)
    assert done.returncode == 0, done.stderr
    levels = [record["levels"] for record in read_records(tmp_path / "out.jsonl")[1]]
    assert len(levels) == 3 and all(("tracks" in one) is (option == "--track") for one in levels)


def test_serve_and_watchdog(tiny_onnx, tmp_path):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(20)
        running = Running(
            SCENE, "--serve", "127.0.0.1:0", "--max-latency", 200, model=tiny_onnx, env={"NOTIFY_SOCKET": address}
        )
        port = int(running.line(r"open http://127\.0\.0\.1:(\d+)/").group(1))
        assert b"READY=1" in systemd.recv(4096)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        for _ in range(100):
            connection.request("GET", "/api/status")
            news = json.loads(connection.getresponse().read())
            if news["frames"] > 5:
                break
            time.sleep(0.05)
        assert news["frames"] > 5 and news["title"] == SCENE and news["timing_ms"]["model"] > 0
        connection.close()
        assert running.end(signal.SIGTERM) == 0, running.lines
        messages = b""
        while b"STOPPING=1" not in messages:
            messages += systemd.recv(4096)
        assert b"WATCHDOG=1" in messages


def test_other_addresses_print_a_token_once(tiny_onnx):
    running = Running(SCENE, "--serve", "0.0.0.0:0", model=tiny_onnx)
    found = running.line(r"open http://[^:]+:(\d+)/\?token=(\S+)")
    port, token = int(found.group(1)), found.group(2)
    running.line("camera is live")
    codes = []
    for path in ("/api/status", f"/api/status?token={token}", "/api/status?token=x"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path)
        codes.append(connection.getresponse().status)
        connection.close()
    assert running.end() == 0
    assert codes == [401, 200, 401]
    assert sum(token in line for line in running.lines) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["v4l2:///dev/video97", "--headless"], "no camera /dev/video97"),
        (["nowhere.mp4", "--headless"], "no file, folder or camera"),
        (["test://", "--show"], "no display to open a window on"),
        (["test://", "--headless", "--show"], "--headless opens no window"),
        (["test://", "--serve", "here"], "HOST:PORT"),
        (["test://", "--serve", "127.0.0.1:0", "--token", "short"], "at least 12"),
        (["test://", "--record", "out.gif"], ".mp4"),
        (["test://", "--record", "no/such/folder/out.mp4"], "cannot be written"),
        (["test://", "--headless", "--level", "7"], "no level 7"),
        (["csi://0", "--headless"], "GStreamer"),
        (["rtsp://127.0.0.1:9/x", "--headless"], "rtsp://127.0.0.1:9/x"),
    ],
)
def test_messages_without_a_traceback(tiny_onnx, arguments, words, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = CliRunner().invoke(main, [*arguments, "--model", str(tiny_onnx)])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.output
    assert words in done.output and "Traceback" not in done.output


def test_help_is_quick_to_import():
    program = "import sys; import cast_sdk.runtime.commands.camera; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.split()
    assert "click" in loaded and not {"cv2", "numpy", "onnxruntime", "torch", "starlette"} & set(loaded)


class Sink:
    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def show(self, result):
        self.seen.append(result.index)
        if len(self.seen) == self.stop_at:
            raise camera.Stop

    def status(self, status):
        pass

    def close(self):
        pass


def test_run_hands_results_to_every_sink():
    sinks = [Sink(), Sink()]
    assert camera.run(StandIn().stream("test://?width=64&height=48&rate=0&count=7"), sinks) == 7
    assert sinks[0].seen == sinks[1].seen == list(range(7))
    assert camera.run(StandIn().stream("test://?width=64&height=48&rate=0"), [Sink(stop_at=3)]) == 2
    assert camera.run(StandIn().stream("test://?width=64&height=48&rate=0"), [Sink()], frames=4) == 4


def test_told_to_end_before_the_first_result(tiny_onnx, monkeypatch):
    stream = StandIn().stream("test://?width=64&height=48&rate=0")
    monkeypatch.setattr(type(stream), "__enter__", lambda self: signal.raise_signal(signal.SIGINT))
    assert camera.run(stream, [Sink()]) == 0
    stream.close()
    # The threads of a stream run, and say that the camera is live, before its maker has it.
    monkeypatch.setattr(cast_sdk.Runtime, "stream", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    done = CliRunner().invoke(main, [SCENE, "--headless", "--model", str(tiny_onnx)])
    assert done.exit_code == 0, done.output


def test_a_window_needs_a_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MissingDependencyError, match="--serve"):
        camera.Window(level=2, levels=4)


def test_the_terminal_tells_of_a_lost_camera(capsys):
    terminal = camera.Terminal()
    terminal.status(Status("lost", "no more frames", 2, 1.0))
    for result in StandIn().stream("test://?width=64&height=48&rate=0&count=3&light=0"):
        terminal.show(result)
    terminal.close()
    text = capsys.readouterr().err
    assert "camera lost: no more frames; attempt 2 in 1.0 s" in text and "very dark" in text and "3 frames" in text


def test_cast_segment_takes_videos(tiny_onnx, tmp_path):
    film = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"MJPG"), 10, (80, 60))
    for i in range(4):
        writer.write(np.full((60, 80, 3), 60 * i, np.uint8))
    writer.release()
    arguments = [str(film), "--out", str(tmp_path / "out"), "--level", "1", "--model", str(tiny_onnx)]
    done = CliRunner().invoke(segment, arguments)
    assert done.exit_code == 0, done.output
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["cast-segment.jsonl", "clip.jsonl", "clip.mp4"]
    header, records = read_records(tmp_path / "out" / "clip.jsonl")
    assert (header["level"], header["rate"], len(list(records))) == (1, 10, 4)
    again = CliRunner().invoke(segment, arguments)
    assert again.exit_code == 0 and "finished already" in again.output
    gone = CliRunner().invoke(segment, ["gone.mp4", *arguments[1:]])
    assert gone.exit_code == 1 and "There is no file" in gone.output


def test_the_example(tiny_onnx):
    example = Path(__file__).parents[3] / "examples" / "jetson_camera.py"
    done = subprocess.run(
        [sys.executable, example, SCENE + "&count=9", tiny_onnx], capture_output=True, text=True, timeout=60, env=QUIET
    )
    assert done.returncode == 0 and "segments 64/" in done.stdout, done.stderr
    assert len(example.read_text().splitlines()) <= 36


def test_deploy_files_and_docs_name_real_options():
    """The command lines of the unit, the images and the documentation are accepted by the program."""
    root = Path(__file__).parents[3]
    deploy = root / "examples" / "deploy"
    known = {option for parameter in main.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unit = re.search(r"^ExecStart=(.*)$", (deploy / "cast-camera.service").read_text(), re.MULTILINE).group(1)
    images = [(deploy / f"Dockerfile.jetpack{n}").read_text() for n in (6, 7)]
    page = (root / "docs" / "camera.md").read_text()
    lines = [unit, *(line for text in images for line in text.splitlines() if "--serve" in line or "--model" in line)]
    lines += re.findall(r"^cast-camera .*$", page, re.MULTILINE)
    assert len(lines) == 9
    for line in lines:
        assert set(re.findall(r"(?<![\w-])--[a-z-]+", line)) <= known, line
    assert set(re.findall(r"`(--[a-z-]+)", page)) <= known
    settings = (deploy / "cast-camera.env").read_text()
    assert set(re.findall(r"\$\{(\w+)\}", unit)) <= set(re.findall(r"^(\w+)=", settings, re.MULTILINE))
    for picture in re.findall(r"\]\((images/[^)]+)\)", page):
        assert (root / "docs" / picture).stat().st_size < 300_000


def test_documented_python(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cast_sdk, "Runtime", StandIn)
    with Recorder("out.mp4") as recorder:
        for result in StandIn().stream("test://?width=64&height=48&rate=0&count=2"):
            recorder.write(result)
    blocks = re.findall(
        r"```python\n(.*?)```", (Path(__file__).parents[3] / "docs" / "camera.md").read_text(), re.DOTALL
    )
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["seg"].index > 0 and names["labels"][4].shape == (48, 64)


class FakeWindows:
    """cv2's window functions with a script of pressed keys."""

    WINDOW_NORMAL, WND_PROP_VISIBLE, error = 0, 4, cv2.error

    def __init__(self, keys):
        self.keys, self.shown, self.destroyed = iter(keys), [], 0

    def namedWindow(self, title, flags):
        pass

    def imshow(self, title, picture):
        self.shown.append(picture)

    def waitKey(self, milliseconds):
        return next(self.keys)

    def getWindowProperty(self, title, name):
        return 1.0

    def destroyWindow(self, title):
        self.destroyed += 1


def test_window_keys(monkeypatch, tmp_path):
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.chdir(tmp_path)
    windows = FakeWindows([ord("0"), ord("+"), ord("b"), ord(" "), -1, ord("s"), ord(" "), ord("9"), -1, ord("q")])
    monkeypatch.setattr(camera, "import_cv2", lambda: windows)
    window = camera.Window(level=2, levels=4)
    count = camera.run(StandIn().stream("test://?width=64&height=48&rate=0"), [window])
    window.close()
    assert count == 6  # three frames, one that stays while paused, two more; q ends at the seventh
    assert (window._level, window._lines, round(window._alpha, 2)) == (4, False, 0.65)
    assert len(windows.shown) == 10 and windows.shown[0].shape == (48, 64, 3) and windows.destroyed == 1
    assert not np.array_equal(windows.shown[0], windows.shown[1])
    assert len(list(tmp_path.glob("cast-*.png"))) == 1
