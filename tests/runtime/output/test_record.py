"""Recordings: complete, atomic, readable, and equal to the results they came from."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from standin import StandIn

from cast_sdk.errors import CastError, ExportError, InputError
from cast_sdk.runtime.camera.packet import pack, unpack
from cast_sdk.runtime.commands.segment_video import segment_video
from cast_sdk.runtime.output.recorder import Recorder, level_maps, read_records
from cast_sdk.runtime.runtime import Runtime


@pytest.fixture
def rt():
    with StandIn() as runtime:
        yield runtime


def frames_of(path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        good, frame = capture.read()
        if not good:
            return frames
        frames.append(frame)


def names(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_video_and_lines_hold_every_frame(rt, tmp_path, suffix):
    results = list(rt.stream("test://?width=120&height=90&rate=0&count=6"))
    with Recorder(tmp_path / f"out{suffix}", level=2, source="scene") as recorder:
        for result in results:
            recorder.write(result)
        assert not (tmp_path / f"out{suffix}").exists()
    assert names(tmp_path) == sorted(["out.jsonl", f"out{suffix}"])
    recorder.close()  # twice is fine
    film = frames_of(tmp_path / f"out{suffix}")
    assert len(film) == 6 and film[0].shape == (90, 120, 3)
    assert np.abs(film[2].astype(int) - results[2].plot(2)).mean() < 12
    header, records = read_records(tmp_path / "out.jsonl")
    assert (header["model"], header["source"], header["level"]) == ("stand_in", "scene", 2)
    records = list(records)
    assert [r["frame"] for r in records] == list(range(6))
    for record, result in zip(records, results, strict=True):
        assert record["top"][0]["name"] == result.top(1)[0][1]
        for level, labels in enumerate(level_maps(record)):
            assert np.array_equal(labels, result.labels(level))


def test_crops_are_placed(tmp_path):
    rt = StandIn()
    cropped = StandIn.__new__(StandIn)
    Runtime.__init__(cropped, rt.backend, fit="crop")
    (result,) = cropped.stream("test://?width=120&height=90&rate=0&count=1")
    with Recorder(tmp_path / "out.mp4") as recorder:
        recorder.write(result)
    (record,) = read_records(tmp_path / "out.jsonl")[1]
    assert np.array_equal(level_maps(record)[3], result.labels(3))
    assert (result.labels(3) == -1).any()


def test_models_without_segments_are_recorded_and_shown(tmp_path):
    rt = StandIn(flat=True)
    with Recorder(tmp_path / "out.mp4", level=None) as recorder:
        for result in rt.stream("test://?width=64&height=48&rate=0&count=2"):
            recorder.write(result)
    records = list(read_records(tmp_path / "out.jsonl")[1])
    assert len(records) == 2 and "levels" not in records[0] and records[0]["top"]
    header, _, labels = unpack(pack(result))
    assert labels is None and header["top"] and "parents" not in header


def test_odd_and_changing_sizes(rt, tmp_path):
    frames = [np.full((*size, 3), 80, np.uint8) for size in ((91, 121), (91, 121), (300, 100))]
    with Recorder(tmp_path / "out.mp4") as recorder:
        for result in rt.stream(frames):
            recorder.write(result)
    assert [f.shape for f in frames_of(tmp_path / "out.mp4")] == [(90, 120, 3)] * 3
    assert [r["size"] for r in read_records(tmp_path / "out.jsonl")[1]] == [[91, 121], [91, 121], [300, 100]]


def test_an_error_keeps_what_was_recorded(rt, tmp_path):
    with pytest.raises(ZeroDivisionError), Recorder(tmp_path / "out.mp4") as recorder:
        for result in rt.stream("test://?width=64&height=48&rate=0"):
            recorder.write(result)
            if result.index == 3:
                raise ZeroDivisionError
    assert names(tmp_path) == ["out.jsonl", "out.mp4"]
    assert len(frames_of(tmp_path / "out.mp4")) == 4


def test_a_video_is_segmented_whole_or_not_at_all(rt, tmp_path):
    film = tmp_path / "clip.avi"
    with Recorder(film) as recorder:
        for result in rt.stream("test://?width=64&height=48&rate=0&count=5"):
            recorder.write(result)

    def interrupt(result, count):
        if result.index == 2:
            raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        segment_video(rt, film, tmp_path / "out" / "clip.mp4", progress=interrupt)
    assert names(tmp_path / "out") == []


def test_nothing_recorded_leaves_nothing(tmp_path):
    with Recorder(tmp_path / "out.mp4"):
        assert len(names(tmp_path)) > 0
    assert names(tmp_path) == []


def test_refusals(rt, tmp_path):
    with pytest.raises(InputError, match=r"\.mp4"):
        Recorder(tmp_path / "out.gif")
    with pytest.raises(CastError, match="cannot be written"):
        Recorder(tmp_path / "no" / "out.mp4")
    (tmp_path / "text.mp4").write_text("no video" * 50)
    with pytest.raises(InputError):
        segment_video(rt, tmp_path / "text.mp4", tmp_path / "out.mp4")
    assert names(tmp_path) == ["text.mp4"]
    (tmp_path / "bad.jsonl").write_text(json.dumps({"frame": 1}))
    with pytest.raises(InputError, match="description"):
        read_records(tmp_path / "bad.jsonl")


def test_live_recordings_keep_the_clock(rt, tmp_path, monkeypatch):
    """Results at 0, 0.1, 0.5 and 0.51 s fill a film of 10 frames a second up to their own time."""
    clock = iter([0.0, 0.1, 0.5, 0.51])
    results = list(rt.stream("test://?width=64&height=48&rate=0&count=4"))
    monkeypatch.setattr("cast_sdk.runtime.output.recorder.time.monotonic", lambda: next(clock))
    with Recorder(tmp_path / "out.mp4", rate=10, live=True) as recorder:
        for result in results:
            recorder.write(result)
    assert len(frames_of(tmp_path / "out.mp4")) == 6
    records = list(read_records(tmp_path / "out.jsonl")[1])
    assert [r["time"] for r in records] == [0.0, 0.1, 0.5, 0.51]
    assert [r["video_frame"] for r in records] == [0, 1, 5, 5]


def test_segment_video(rt, tmp_path):
    source = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 12, (80, 60))
    for i in range(7):
        writer.write(np.full((60, 80, 3), i * 30, np.uint8))
    writer.release()
    seen = []
    film = tmp_path / "clip.mp4"
    segment_video(rt, source, film, level=3, progress=lambda r, n: seen.append((r.index, n)))
    assert seen == [(i, 7) for i in range(7)]
    assert len(frames_of(film)) == 7
    assert cv2.VideoCapture(str(film)).get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    assert read_records(film.with_suffix(".jsonl"))[0]["rate"] == 12


def test_a_recording_that_could_not_be_written_is_an_error(rt, tmp_path, monkeypatch):
    """OpenCV's writer reports nothing: a film that lacks its end stands for a full disk."""
    monkeypatch.setattr("cast_sdk.runtime.output.recorder.Recorder._show", lambda self, picture: _cut(self))
    with (
        pytest.raises(ExportError, match=r"(?s)could not be written whole.*free"),
        Recorder(tmp_path / "out.mp4") as film,
    ):
        for result in rt.stream("test://?width=64&height=48&rate=0&count=3"):
            film.write(result)
    assert names(tmp_path) == []


def _cut(recorder):
    recorder._shown += 1


LEVELS = {
    "map": [2, 2],
    "labels": [0, 1],
    "lengths": [2, 2],
    "parents": [[0, 0]],
    "geometry": {"resized": [2, 2], "top": 0, "left": 0},
}


@pytest.mark.parametrize(
    "record",
    [
        {"size": [2, 2]},
        {"size": [2, 2], "levels": {**LEVELS, "lengths": [2, 1]}},
        {"size": [2, 2], "levels": {**LEVELS, "parents": [[0]]}},
    ],
)
def test_a_spoiled_record_says_what_helps(record):
    assert len(level_maps({"size": [2, 2], "levels": LEVELS})) == 2
    with pytest.raises(InputError) as caught:
        level_maps(record)
    assert caught.value.remedy


@pytest.mark.parametrize("content", [b"[]", b"no JSON", b"\xff\xfe", None])
def test_a_spoiled_recording_says_what_helps(tmp_path, content):
    if content is not None:
        (tmp_path / "r.jsonl").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_records(tmp_path / "r.jsonl")
    assert caught.value.remedy
