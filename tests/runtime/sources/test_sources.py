"""Every kind of source that needs no device, and the messages of those that do."""

from __future__ import annotations

import http.server
import itertools
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import missing

from cast_sdk.errors import CastError, InputError, MissingDependencyError
from cast_sdk.runtime.sources import gstreamer
from cast_sdk.runtime.sources import opencv as capture
from cast_sdk.runtime.sources.base import FLIPS, SourceOptions, adjusted
from cast_sdk.runtime.sources.opening import open_source


def picture(index: int, size=(48, 64)) -> np.ndarray:
    return np.full((*size, 3), (index * 20 % 256, 100, 50), np.uint8)


@pytest.fixture
def folder(tmp_path):
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"f{i}.png"), picture(i))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for i in range(12):
        writer.write(picture(i))
    writer.release()
    return path


def test_folder_file_glob_and_iterable(folder):
    assert [Path(f).name for f in open_source(folder)] == [f"f{i}.png" for i in range(5)]
    assert len(list(open_source(f"{folder}/f[12].png"))) == 2
    assert list(open_source(str(folder / "f3.png"))) == [str(folder / "f3.png")]
    assert list(open_source(f"file://{folder}/f3.png")) == [str(folder / "f3.png")]
    frames = [picture(0), picture(1)]
    for given, frame in zip(open_source(frames), frames, strict=True):  # read ahead, so each is a copy
        assert np.array_equal(given, frame) and not np.shares_memory(given, frame)
    assert len(list(itertools.islice(open_source(folder, loop=True), 12))) == 12


def test_folder_frames_are_resized_and_flipped(folder):
    (frame, *_) = open_source(folder, width=32, flip="rotate-90")
    assert frame.shape == (32, 24, 3)


def test_video_file(video):
    source = open_source(video)
    assert (source.live, source.rate, source.count) == (False, 25, 12)
    frames = list(source)
    assert len(frames) == 12 and frames[0].shape == (48, 64, 3)
    assert np.abs(frames[3].astype(int) - picture(3)).max() < 12
    assert source.status.state == "ended"
    assert next(f.shape for f in open_source(video, height=24)) == (24, 32, 3)
    assert len(list(itertools.islice(open_source(video, loop=True), 30))) == 30


def test_truncated_video_says_so(video, tmp_path, caplog):
    cut = tmp_path / "cut.avi"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    try:
        frames = list(open_source(cut))
    except InputError as error:
        assert "decode" in str(error)
    else:
        assert 0 < len(frames) < 12


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("nowhere/at/all.mp4", "There is no file, folder or camera"),
        ("v4l2:///dev/video97", "no camera /dev/video97"),
        (97, "no camera /dev/video97"),
        ("ftp://host/x", "no kind of source ftp://"),
        ("csi://front", "csi://0"),
        ("test://?width=abc", "is not a number"),
        ("test://?widht=64", "widht"),
        ("test://?width=5", "16 to 4096"),
        ("*.nothing", "No image files match"),
        (3.5, "camera number or an iterable"),
        (picture(0), "segment(frame)"),
    ],
)
def test_messages(uri, words):
    with pytest.raises(CastError) as caught:
        open_source(uri)
    assert words in str(caught.value)


def test_bad_files(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video" * 100)
    with pytest.raises(InputError, match="empty"):
        open_source(tmp_path / "empty.mp4")
    with pytest.raises(InputError, match="cannot decode the video"):
        open_source(tmp_path / "text.mp4")
    with pytest.raises(InputError, match="holds no image files"):
        (tmp_path / "sub").mkdir()
        open_source(tmp_path / "sub")
    with pytest.raises(InputError, match="no flip"):
        open_source("test://", flip="sideways")
    with pytest.raises(InputError, match="rate"):
        open_source("test://", rate=-1)
    with pytest.raises(InputError, match="iterable of frames"):
        open_source([picture(0)], loop=True)


def test_flips_agree_with_numpy():
    frame = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    expected = {
        "none": frame,
        "horizontal": frame[:, ::-1],
        "vertical": frame[::-1],
        "rotate-90": np.rot90(frame, -1),
        "rotate-180": np.rot90(frame, 2),
        "rotate-270": np.rot90(frame, 1),
    }
    assert set(expected) == set(FLIPS)
    for flip, wanted in expected.items():
        assert np.array_equal(adjusted(frame, SourceOptions(flip=flip), resize=False), wanted), flip


def test_passwords_are_hidden():
    source = open_source("rtsp://me:secret@127.0.0.1:9/x")
    with pytest.raises(InputError) as caught:
        next(iter(source))
    assert "secret" not in str(caught.value)


def test_scene_moves_and_repeats():
    options = "test://?width=160&height=120&rate=0&count=40"
    frames = list(open_source(options))
    assert len(frames) == 40 and frames[0].shape == (120, 160, 3)
    assert not np.array_equal(frames[0], frames[39])
    assert all(np.array_equal(a, b) for a, b in zip(frames, open_source(options), strict=True))
    assert not open_source(options).live
    (dark,) = open_source("test://?count=1&light=0&rate=0")
    assert dark.max() == 0
    live = open_source("test://?count=5&rate=500")
    assert live.live and len(list(live)) == 5


class FlakyCamera(capture.LiveSource):
    """Opens after some failures; then plays a script of reads: a frame, None (damaged) or "lost"."""

    def __init__(self, script, failures=0, wait=False):
        super().__init__("flaky://", SourceOptions(), wait=wait)
        self.script, self.failures, self.opened, self.released = iter(script), failures, 0, 0

    def open(self):
        if self.failures:
            self.failures -= 1
            raise InputError("The camera must open.", found="not there")
        self.opened += 1
        return self

    def read(self):
        value = next(self.script, "end")
        if isinstance(value, str) and value == "lost":
            self.script = itertools.chain([None] * (capture.MAX_BAD_READS - 1), self.script)
            return False, None
        if isinstance(value, str):
            self.stop()
            return False, None
        return value is not None, value

    def release(self):
        self.released += 1


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(capture, "MIN_RETRY", 0.01)
    monkeypatch.setattr(capture.LiveSource, "pause", lambda self, seconds: None)


def test_lost_cameras_come_back(quick):
    camera = FlakyCamera([picture(0), "lost", picture(1), None, picture(2), picture(0, (30, 40))])
    states = []
    camera.on_status = states.append
    frames = list(camera)
    assert [f.shape[:2] for f in frames] == [(48, 64)] * 3 + [(30, 40)]  # the size may change
    assert [s.state for s in states] == ["opening", "live", "lost", "live", "ended"]
    assert states[2].attempt == 1
    assert (camera.opened, camera.released) == (2, 2)
    assert camera.skipped >= 1


def test_damaged_frames_are_skipped(quick):
    bad = [np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4), np.uint8), np.full((4, 4, 3), np.nan, np.float32)]
    camera = FlakyCamera([picture(0), *bad, picture(1)])
    assert len(list(camera)) == 2
    assert camera.skipped >= 3


def test_the_first_failure_is_an_error_unless_waiting(quick):
    with pytest.raises(InputError, match="not there"):
        list(FlakyCamera([picture(0)], failures=1))
    waiting = FlakyCamera([picture(0)], failures=3, wait=True)
    states = []
    waiting.on_status = states.append
    assert len(list(waiting)) == 1
    lost = [s for s in states if s.state == "lost"]
    assert [s.attempt for s in lost] == [1, 2, 3]
    assert [s.retry_in for s in lost] == pytest.approx([0.01, 0.02, 0.04])


def test_mjpeg_over_http(tmp_path):
    class Camera(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for i in range(40):
                data = cv2.imencode(".jpg", picture(i))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + data + b"\r\n")
                except OSError:
                    return

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        source = open_source(f"http://127.0.0.1:{server.server_port}/video.mjpg", width=32)
        frames = list(itertools.islice(source, 6))
        assert source.live and frames[0].shape == (24, 32, 3)
    finally:
        server.shutdown()
        server.server_close()


def test_csi_names_the_missing_piece(monkeypatch):
    monkeypatch.setattr(gstreamer, "opencv_has_gstreamer", lambda: False)
    monkeypatch.setitem(sys.modules, "gi", None)
    gstreamer._gst.cache_clear()
    try:
        with pytest.raises(MissingDependencyError) as caught:
            open_source("csi://0")
    finally:
        gstreamer._gst.cache_clear()
    assert "without GStreamer" in str(caught.value) and "python3-gi" in str(caught.value)


def test_csi_pipeline():
    text = gstreamer.csi_pipeline(1, 1920, 1080, 29.97)
    assert "nvarguscamerasrc sensor-id=1" in text and "width=1920,height=1080,framerate=29970/1000" in text


SYSTEM_GI = """
import site, sys
for folder in sys.argv[1:]:
    site.addsitedir(folder)
from cast_sdk.errors import CastError
from cast_sdk.runtime.sources.opening import open_source
source = open_source("gst://videotestsrc is-live=true pattern=ball ! video/x-raw,width=62,height=48,framerate=50/1")
frames = []
for frame in source:
    frames.append(frame)
    if len(frames) == 5:
        source.stop()
assert frames[0].shape == (48, 62, 3) and frames[0].flags.c_contiguous, frames[0].shape
assert any((a != b).any() for a, b in zip(frames, frames[1:])), "the ball moves"
for uri in ("csi://0", "gst://nosuchelement ! x", "gst://videotestsrc pattern=bull"):
    try:
        next(iter(open_source(uri)))
    except CastError as error:
        print(type(error).__name__, str(error).replace("\\n", " "))
"""


def test_gstreamer_through_pygobject():
    """Real GStreamer, with the distribution's Python, which has PyGObject."""
    python = shutil.which("python3", path="/usr/bin")
    # PyGObject may be there without GStreamer's typelibs or plugins.
    probe = (
        "import sys, gi; gi.require_version('Gst', '1.0'); gi.require_version('GstApp', '1.0')\n"
        "from gi.repository import Gst, GstApp; Gst.init(None)\n"
        "assert all(map(Gst.ElementFactory.find, ('videotestsrc', 'videoconvert', 'appsink')))\n"
        "print('%d.%d' % sys.version_info[:2])"
    )
    system = subprocess.run([str(python), "-c", probe], capture_output=True, text=True) if python else None
    if system is None or system.returncode:
        missing(
            "needs PyGObject and GStreamer "
            "(apt-get install -y python3-gi gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base)"
        )
    if system.stdout.strip() != f"{sys.version_info.major}.{sys.version_info.minor}":
        pytest.skip(f"PyGObject is there for Python {system.stdout.strip()} only")
    run = subprocess.run(
        [python, "-c", SYSTEM_GI, *(p for p in sys.path if p.endswith("site-packages"))],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    csi, unknown, invalid = run.stdout.splitlines()
    assert csi.startswith("MissingDependencyError") and "nvarguscamerasrc" in csi
    assert unknown.startswith("MissingDependencyError") and "nosuchelement" in unknown
    assert invalid.startswith("InputError") and "pattern" in invalid
