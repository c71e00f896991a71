"""Files by their content, and folders that leave nothing out in silence."""

from __future__ import annotations

import http.server
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

import cast_sdk
from cast_sdk.errors import InputError
from cast_sdk.runtime.sources.folders import search
from cast_sdk.runtime.sources.kinds import HEAD, file_kind, kind_of
from cast_sdk.runtime.sources.opencv import FileSource
from cast_sdk.runtime.sources.opening import open_source


@pytest.fixture
def rt(tiny_onnx):
    with cast_sdk.Runtime(tiny_onnx) as runtime:
        yield runtime


def write_clip(path: Path, frames: int = 5, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 20 * index, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm", ".pgm", ".jp2", ".gif", ".avif"])
def test_images_of_opencv(suffix: str, photo):
    try:
        done, data = cv2.imencode(suffix, photo[:64, :64] if suffix != ".pgm" else photo[:64, :64, 0])
    except cv2.error:
        done = False
    if not done:
        pytest.skip(f"this OpenCV {cv2.__version__} does not write {suffix}")
    assert kind_of(bytes(data[:HEAD])) == "image"


@pytest.mark.parametrize("suffix, codec", [(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "mp4v"), (".mov", "mp4v")])
def test_videos_of_opencv(tmp_path, suffix: str, codec: str):
    assert file_kind(write_clip(tmp_path / f"clip{suffix}", codec=codec)) == "video"


@pytest.mark.parametrize(
    "head, kind",
    [
        (b"\0\0\0\x18ftypheic", "image"),
        (b"\0\0\0\x18ftypavif", "image"),
        (b"\0\0\0\x18ftypisom", "video"),
        (b"RIFF\0\0\0\0WEBP", "image"),
        (b"RIFF\0\0\0\0WAVE", None),
        ((b"G" + b"\0" * 187) * 3, "video"),
        (b"Go home", None),
        (b"P6\n", "image"),
        (b"Paper", None),
        (b"", None),
    ],
)
def test_other_beginnings(head: bytes, kind: str | None):
    assert kind_of(head) == kind


def test_a_folder_says_what_it_leaves_out(tmp_path, photo):
    cv2.imwrite(str(tmp_path / "b.png"), photo)
    (tmp_path / "b.png").rename(tmp_path / "b without suffix")
    (tmp_path / "a.jpg").write_bytes(b"damaged")
    write_clip(tmp_path / "clip.avi")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "loop").symlink_to(tmp_path)
    found = search(tmp_path)
    assert [path.name for path in found.images] == ["a.jpg", "b without suffix"]
    assert [path.name for path in found.videos] == ["clip.avi"]
    assert {reason: [path.name for path in paths] for reason, paths in found.left_out.items()} == {
        "hidden files and folders": [".hidden.png"],
        "files that are neither image nor video": ["notes.txt"],
        "links that lead nowhere": ["lost.png"],
        "pipes, sockets and devices": ["pipe.png"],
    }
    assert "folders inside" in search(tmp_path, deep=False).left_out


def test_one_damaged_file_does_not_end_a_folder(rt, tmp_path, photo, caplog):
    for name in ("a.png", "z.png"):
        cv2.imwrite(str(tmp_path / name), photo)
    (tmp_path / "m.jpg").write_bytes(b"\xff\xd8\xff half a picture")
    for options in ({}, {"width": 100}):
        stream = rt.stream(tmp_path, **options)
        assert len(list(stream)) == 2 and stream.source.skipped == 1
    assert "m.jpg" in caplog.text
    assert len([r for r, _ in zip(rt.stream(tmp_path, loop=True), range(5), strict=False)]) == 5


@pytest.mark.parametrize("loop", [False, True])
def test_a_folder_without_a_readable_file_is_an_error(rt, tmp_path, loop):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff half a picture")
    with pytest.raises(InputError, match=r"None of the .* can be read"):
        list(rt.stream(tmp_path, loop=loop))


def test_a_folder_named_as_a_number(rt, tmp_path, photo, monkeypatch):
    (tmp_path / "2024").mkdir()
    cv2.imwrite(str(tmp_path / "2024" / "a.png"), photo)
    monkeypatch.chdir(tmp_path)
    assert len(list(rt.stream("2024"))) == 1


def test_kinds_are_not_told_by_names(rt, tmp_path, photo):
    write_clip(tmp_path / "clip.avi", 4).rename(tmp_path / "clip")
    cv2.imwrite(str(tmp_path / "a.png"), photo)
    (tmp_path / "a.png").rename(tmp_path / "a.mp4")
    assert len(list(rt.stream(tmp_path / "clip"))) == 4
    assert len(list(rt.stream(tmp_path / "a.mp4"))) == 1


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe, socket or device"):
        open_source(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["a\0b.png", ""])
def test_names_that_are_none(name: str):
    with pytest.raises(InputError, match="no name of a source"):
        open_source(name)


def test_a_name_that_is_not_utf8_does_not_end_the_process(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.avi")
    Path(path).write_bytes(write_clip(tmp_path / "clip.avi").read_bytes())
    with pytest.raises(InputError, match="not UTF-8"):
        open_source(path)


def test_a_video_behind_an_http_address_is_read_once_and_whole(rt, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 12, "mp4v").read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(clip)))
            self.end_headers()
            self.wfile.write(clip)

        def log_message(self, *_):
            """Silence."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        source = open_source(f"http://127.0.0.1:{server.server_port}/clip.mp4")
        assert isinstance(source, FileSource) and not source.live
        assert len(list(rt.stream(source))) == 12
    finally:
        server.shutdown()


def test_frames_of_an_iterable_are_copied(rt, photo):
    buffer = np.empty_like(photo)

    def frames():
        for index in range(8):
            buffer[:] = np.roll(photo, 30 * index, axis=1)
            yield buffer

    expected = [rt.segment(np.roll(photo, 30 * index, axis=1)).labels(2) for index in range(8)]
    found = [result.labels(2) for result in rt.stream(frames())]
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
