"""The server of the live view and its good clients."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import socket
import threading
import time

import cv2
import numpy as np
import pytest
from live_view import Camera, photo, ws
from standin import StandIn

from cast_sdk.errors import InputError
from cast_sdk.runtime.camera.packet import pack, unpack

pytest.importorskip("uvicorn", reason="needs the extra serve")
from websockets.exceptions import ConnectionClosed

from cast_sdk.runtime.camera import server
from cast_sdk.runtime.camera.server import WebView
from cast_sdk.runtime.service import photos
from cast_sdk.runtime.service.web import parse_address


def test_packets_are_lossless():
    rt = StandIn()
    frame = np.random.default_rng(1).integers(0, 255, (50, 70, 3), np.uint8)
    result = rt.segment(frame)
    header, jpeg, labels = unpack(pack(result, fps=3.5))
    assert np.array_equal(labels, result.hierarchy.superpixels)
    assert header["fps"] == 3.5 and header["top"][0][0] == result.top(1)[0][1]
    assert header["unsure"] is False
    rt.backend.spec = dataclasses.replace(rt.spec, unsure_below=1.0)
    assert unpack(pack(rt.segment(frame)))[0]["unsure"] is True
    for level, parents in enumerate(header["parents"]):
        assert parents == result.parents(level).tolist()
        assert len(header["colours"][level]) == 6 * result.num_segments(level)
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1).shape == frame.shape


def test_long_runs_survive():
    rt = StandIn()
    result = rt.segment(np.zeros((20, 20, 3), np.uint8))
    object.__setattr__(result.hierarchy, "superpixels", np.zeros((40, 40), np.int32))
    _, _, labels = unpack(pack(result))
    assert labels.shape == (40, 40) and not labels.any()


def test_page_and_headers(camera):
    status, page, headers = camera.request("GET", "/")
    assert status == 200 and b"<canvas" in page
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "sha256-" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    text = page.decode()
    addresses = set(re.findall(r"https?://[^\s'\"]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the page loads nothing from elsewhere"


def test_status_and_stream(camera):
    status, body, _ = camera.request("GET", "/api/status")
    news = json.loads(body)
    assert status == 200 and news["source"]["state"] == "live" and news["levels"] == 4
    with ws(camera) as line:
        assert json.loads(line.recv(5))["title"] == "test://"
        numbers = []
        while len(numbers) < 6:
            message = line.recv(5)
            if isinstance(message, bytes):
                numbers.append(unpack(message)[0]["index"])
                line.send("ack")
    assert numbers == sorted(set(numbers))


def test_a_viewer_that_does_not_confirm_gets_the_newest_frame_later(camera):
    with ws(camera) as line:
        got = []
        while len(got) < 2:
            message = line.recv(5)
            if isinstance(message, bytes):
                got.append(unpack(message)[0]["index"])
        with pytest.raises(TimeoutError):
            while True:  # nothing but status messages without a confirmation
                message = line.recv(0.4)
                assert not isinstance(message, bytes)
        before = camera.count
        line.send("ack")
        while not isinstance(message := line.recv(5), bytes):
            pass
        assert unpack(message)[0]["index"] > got[-1] + 5
        assert camera.count >= before


def test_a_late_viewer_gets_a_fresh_frame_first(camera):
    def first() -> int:
        with ws(camera) as line:
            while not isinstance(message := line.recv(5), bytes):
                pass
        return unpack(message)[0]["index"]

    assert camera.runs()
    first()
    deadline = time.monotonic() + 10
    while camera.view.hub.viewers and time.monotonic() < deadline:
        time.sleep(0.01)
    assert camera.runs() and camera.runs()
    now = camera.view.hub.latest.index
    assert first() >= now


def test_a_viewer_that_takes_nothing_is_dropped(camera, monkeypatch):
    """It confirms frames that it never reads: the sending end blocks, and is given up."""
    monkeypatch.setattr(server, "SEND_SECONDS", 0.5)
    before = len(camera.view.hub.viewers)
    plug = socket.create_connection(("127.0.0.1", camera.port), timeout=10)
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line = f"GET /api/stream HTTP/1.1\r\nHost: 127.0.0.1:{camera.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    plug.sendall(f"{line}Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    ack = b"\x81\x83\0\0\0\0ack"
    joined, deadline = False, time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            plug.sendall(ack)
        time.sleep(0.01)
        joined = joined or len(camera.view.hub.viewers) > before
        if joined and len(camera.view.hub.viewers) == before:
            break
    plug.close()
    assert joined and len(camera.view.hub.viewers) == before


def test_pause(camera):
    with ws(camera) as line:
        line.send("pause")
        time.sleep(0.3)
        deadline = time.monotonic() + 0.5
        late = 0
        while time.monotonic() < deadline:
            try:
                late += isinstance(line.recv(0.1), bytes)
            except TimeoutError:
                continue
        assert late <= 2  # what was under way


def test_photograph(camera):
    status, body, _ = camera.request("POST", "/api/segment", photo())
    header, _, labels = unpack(body)
    assert status == 200 and header["photo"] and header["size"] == [60, 90] and labels.shape == (96, 96)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_other_formats(camera, suffix):
    data = cv2.imencode(suffix, np.zeros((30, 40, 4), np.uint8))[1].tobytes()
    assert camera.request("POST", "/api/segment", data)[0] == 200


def test_pictures_of_16_bits_are_not_white(camera):
    deep = np.full((30, 40, 3), [1000, 20000, 40000], np.uint16)
    data = cv2.imencode(".png", deep)[1].tobytes()
    assert photos.read_photo(data)[0, 0].tolist() == [4, 78, 156]
    assert camera.request("POST", "/api/segment", data)[0] == 200


def test_photographs_are_turned_upright():
    from PIL import Image

    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(buffer, "JPEG", exif=exif)
    assert photos.read_photo(buffer.getvalue()).shape == (40, 20, 3)


def test_snapshot(camera):
    status, body, headers = camera.request("GET", "/api/snapshot.jpg?level=3&alpha=0.2&boundaries=0")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert cv2.imdecode(np.frombuffer(body, np.uint8), 1).shape == (120, 160, 3)


def test_many_viewers_share_one_model_run(camera):
    before_runs, before = camera.rt.backend.runs, camera.count
    with contextlib.ExitStack() as stack:
        for line in [stack.enter_context(ws(camera)) for _ in range(8)]:
            while not isinstance(line.recv(5), bytes):
                pass
    # The two counters are read while frames flow: a few may lie between them.
    assert abs((camera.rt.backend.runs - before_runs) - (camera.count - before)) <= 5


def test_addresses():
    assert parse_address("0.0.0.0:8000") == ("0.0.0.0", 8000)
    assert parse_address(":80") == ("127.0.0.1", 80)
    assert parse_address("8000") == ("127.0.0.1", 8000)
    assert parse_address("[::1]:8000") == ("::1", 8000)
    for bad in ("", "host", "host:http", "127.0.0.1:99999"):
        with pytest.raises(InputError):
            parse_address(bad)


def test_a_taken_port_is_explained(camera):
    with pytest.raises(InputError, match="listen"):
        WebView(StandIn(), port=camera.port)


def test_closing_leaves_nothing():
    before = set(threading.enumerate())
    camera = Camera()
    with ws(camera) as line:
        line.recv(5)
        camera.close()
        with pytest.raises(ConnectionClosed):
            for _ in range(100):
                line.recv(5)
    assert [t.name for t in set(threading.enumerate()) - before if t.name.startswith("cast-")] == []
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", camera.port), timeout=1)
