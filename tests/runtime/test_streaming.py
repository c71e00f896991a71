"""Runtime.stream with a stand-in network: order, timing, and everything that can go wrong with a source."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from standin import StandIn

from cast_sdk.errors import InputError, StreamError
from cast_sdk.runtime.sources.base import Status
from cast_sdk.runtime.sources.opening import open_source

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def rt():
    with StandIn() as runtime:
        yield runtime


@pytest.fixture(autouse=True)
def no_orphans():
    yield
    gc.collect()
    assert [t.name for t in threading.enumerate() if t.name.startswith("cast-")] == []


def colour(value: int, size=(60, 80)) -> np.ndarray:
    return np.full((*size, 3), (value, 255 - value, 0), np.uint8)


def test_results_equal_segment_in_order(rt):
    frames = [colour(i * 5) for i in range(30)]
    results = list(rt.stream(frames, workers=3))
    assert [r.index for r in results] == list(range(30))
    for result, frame in zip(results, frames, strict=True):
        alone = rt.segment(frame)
        assert np.array_equal(result.frame, frame)
        assert np.array_equal(result.embedding, alone.embedding)
        assert np.array_equal(result.labels(2), alone.labels(2))
    assert {"read", "preprocess", "superpixels", "model", "postprocess", "total", "latency"} <= set(results[0].timing)
    assert results[-1].dropped == 0


def test_video_folder_and_scene(rt, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (80, 60))
    for i in range(8):
        writer.write(colour(i))
        cv2.imwrite(str(tmp_path / f"{i}.png"), colour(i))
    writer.release()
    assert len(list(rt.stream(tmp_path / "clip.avi"))) == 8
    assert [Path(r.source).name for r in rt.stream(tmp_path)] == [f"{i}.png" for i in range(8)]
    assert len(list(rt.stream("test://?width=64&height=64&count=9&rate=0"))) == 9


def test_live_sources_drop_stale_frames():
    with StandIn(wait=0.03) as slow:
        results = list(slow.stream("test://?width=64&height=48&rate=300&count=60"))
    assert results[-1].index == 59
    assert len(results) + results[-1].dropped == 60
    assert len(results) < 40
    assert [r.index for r in results] == sorted(r.index for r in results)


def test_latest_can_be_switched_off(rt):
    assert len(list(rt.stream("test://?width=64&height=48&rate=300&count=20", latest=False))) == 20


def test_a_source_that_fails_midway(rt):
    def source():
        for i in range(4):
            yield colour(i)
        raise OSError("cable pulled")

    seen = 0
    with pytest.raises(StreamError, match="cable pulled") as caught:
        for _ in rt.stream(source()):
            seen += 1
    assert seen == 4 and isinstance(caught.value.__cause__, OSError)


def test_a_stream_that_does_not_answer_says_so_itself(rt):
    with pytest.raises(InputError, match="no video from rtsp://"):
        next(rt.stream("rtsp://127.0.0.1:9/nothing"))


def test_a_source_that_ends_at_once(rt):
    assert list(rt.stream([])) == []


def test_a_source_that_cannot_be_opened_fails_at_the_call(rt):
    with pytest.raises(InputError, match="no camera /dev/video97"):
        rt.stream("v4l2:///dev/video97")


@pytest.mark.parametrize(
    "bad",
    [
        None,
        np.zeros((0, 10, 3), np.uint8),
        np.full((8, 8, 3), np.nan, np.float32),
        np.zeros((3, 8, 8, 3), np.uint8),
        "no/such/file.png",
    ],
)
def test_a_damaged_frame_names_its_number(rt, bad):
    seen = []
    with pytest.raises(StreamError, match="frame 2") as caught:
        seen.extend(r.index for r in rt.stream([colour(0), colour(1), bad, colour(3)]))
    assert seen == [0, 1]
    assert isinstance(caught.value.__cause__, InputError)


def test_the_resolution_may_change(rt):
    sizes = [(60, 80), (60, 80), (120, 100), (33, 47)]
    assert [r.labels(1).shape for r in rt.stream([colour(9, s) for s in sizes])] == sizes


def test_dark_frames(rt):
    for result in rt.stream("test://?width=64&height=48&rate=0&count=3&light=0"):
        assert result.frame.max() == 0 and result.labels(4).shape == (48, 64)


def test_a_failing_network_surfaces(rt):
    runs = []

    def run(image, superpixels):
        runs.append(1)
        if len(runs) == 3:
            raise RuntimeError("out of memory")
        return good(image, superpixels)

    good, rt.backend.run = rt.backend.run, run
    with pytest.raises(StreamError, match=r"'model' failed on frame 2.*\n.*out of memory"):
        list(rt.stream([colour(i) for i in range(9)], network_workers=1))
    assert len(list(rt.stream([colour(i) for i in range(9)]))) == 9  # the runtime itself is still good


def test_a_stalled_network_is_reported(rt):
    release = threading.Event()
    rt.backend.run = lambda image, superpixels: release.wait(30)
    threading.Timer(0.5, release.set).start()
    with pytest.raises(StreamError, match="Stage 'model' has been working on frame 0"):
        list(rt.stream([colour(1)], stall_timeout=0.1))


def test_stopping_early_ends_the_source(rt):
    source = open_source("test://?width=64&height=48")
    for result in rt.stream(source):
        if result.index > 2:
            break
    del result
    gc.collect()
    deadline = time.monotonic() + 5
    while source.status.state != "ended" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert source.status.state == "ended"


def test_status_is_reported(rt):
    states: list[Status] = []
    with rt.stream("test://?width=64&height=48&count=2", on_status=states.append) as stream:
        list(stream)
    assert [s.state for s in states] == ["live", "ended"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program(number):
    """Ctrl-C while frames flow: the loop raises KeyboardInterrupt and no thread keeps the process alive."""
    program = textwrap.dedent(
        f"""
        import sys, threading
        sys.path.insert(0, {str(SUPPORT)!r})
        from standin import StandIn
        try:
            for count, result in enumerate(StandIn().stream("test://?width=64&height=48&rate=200")):
                if count == 5:
                    print("running", flush=True)
        except KeyboardInterrupt:
            pass
        left = [t.name for t in threading.enumerate() if t.name.startswith("cast-")]
        print("ended", left, flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "running"
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    if number == signal.SIGINT:
        assert (out.strip(), process.returncode) == ("ended []", 0)
    else:
        assert process.returncode == -signal.SIGTERM
