"""The server of the live view and hostile clients."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import zlib

import pytest
from live_view import photo, raw, ws

pytest.importorskip("uvicorn", reason="needs the extra serve")
from websockets.exceptions import ConnectionClosed

from cast_sdk.runtime.camera import server
from cast_sdk.runtime.service import guard, photos


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/"), ("PUT", "/api/segment"), ("GET", "/api/segment"), ("POST", "/api/status")]
)
def test_wrong_methods(camera, method, path):
    assert camera.request(method, path, b"")[0] == 405


@pytest.mark.parametrize(
    "query",
    [
        "level=9",
        "level=-1",
        "level=2.5",
        "level=",
        "alpha=2",
        "alpha=nan",
        "alpha=1e999",
        "boundaries=7",
        "level=" + "9" * 5000,
    ],
)
def test_parameters_out_of_range(camera, query):
    status, body, _ = camera.request("GET", f"/api/snapshot.jpg?{query}")
    assert status == 400 and len(body) < 500


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/..%2f..%2fserver.py",
        "/index.html",
        "//etc/passwd",
        "/api/%00",
    ],
)
def test_paths_do_not_reach_files(camera, path):
    status, body, _ = camera.request("GET", path)
    assert status == 404 and b"root:" not in body


def bomb(width: int, height: int) -> bytes:
    """A small PNG that states a huge size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 3_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 415),
        (b"hello", 415),
        (photo()[: len(photo()) // 3], 415),
        (photo()[:20] + b"\xff" * 400, 415),
        (b"GIF89a" + b"\0" * 100, 415),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
        (bomb(50_000, 50_000), 413),
        (bomb(2**31 - 1, 2**31 - 1), 413),
        (bomb(0, 10), 415),
        (bomb(3000, 3000), 415),
        (b"\xff\xd8" + b"\0" * (photos.MAX_BYTES + 1), 413),
    ],
    ids=["empty", "text", "cut", "garbled", "gif", "eps", "bomb", "huge", "flat", "short", "long"],
)
def test_bad_photographs(camera, data, status):
    try:
        code, body, _ = camera.request("POST", "/api/segment", data)
    except ConnectionError:
        assert len(data) > photos.MAX_BYTES  # refused while it was still being sent
        return
    assert code == status and "error" in json.loads(body)


HEAD = b"Host: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 300,
        b"GET / HTTP/1.1\r\n" + HEAD + b"X: " + b"a" * 2_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 9000 + b"\r\n",
        b"GET /" + b"a" * 2_000_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"POST /api/segment HTTP/1.1\r\n" + HEAD + b"Content-Length: -5\r\n\r\n",
        b"POST /api/segment HTTP/1.1\r\n" + HEAD + b"Content-Length: 99999999999999\r\n\r\n",
        b"POST /api/segment HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\r\n" * 40000,
        b"GET / HTTP/9.9\r\n\r\n",
    ],
    ids=["tls", "header", "headers", "path", "negative", "enormous", "chunks", "newlines", "version"],
)
def test_malformed_requests(camera, data):
    try:
        answer = raw(camera, data)
    except ConnectionError:
        return
    assert answer == b"" or answer.split(b" ")[1][:1] == b"4", answer[:200]


def test_chunked_uploads_are_limited_too(camera):
    def parts():
        for _ in range(photos.MAX_BYTES // 2**20 + 2):
            yield b"\xff" * 2**20

    try:
        code, _, _ = camera.request("POST", "/api/segment", parts(), {"Transfer-Encoding": "chunked"})
    except ConnectionError:
        return
    assert code == 413


@pytest.mark.parametrize("message", ["hello", b"\0\1\2", "x" * 5000, "{}"])
def test_bad_messages_close_the_stream(camera, message):
    with ws(camera) as line:
        line.send(message)
        with pytest.raises(ConnectionClosed):
            for _ in range(200):
                line.recv(5)


def test_slow_heads_are_closed(camera, monkeypatch):
    monkeypatch.setattr(guard, "HEADER_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", camera.port), timeout=10) as line:
        began = time.monotonic()
        line.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        try:
            while time.monotonic() - began < 8:
                line.sendall(b"X: y\r\n")
                time.sleep(0.1)
        except ConnectionError:
            return
        pytest.fail("a request head that never ends is still open")


def test_slow_bodies_are_closed(camera, monkeypatch):
    monkeypatch.setattr(server, "UPLOAD_SECONDS", 0.3)
    answer = raw(camera, b"POST /api/segment HTTP/1.1\r\n" + HEAD + b"Content-Length: 1000\r\n\r\nabc", 10)
    assert b" 408 " in answer


def test_a_crowd_of_silent_connections(camera):
    lines = [socket.create_connection(("127.0.0.1", camera.port), timeout=5) for _ in range(guard.MAX_CONNECTIONS + 20)]
    try:
        assert camera.runs()
    finally:
        for line in lines:
            line.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert camera.request("GET", "/api/status")[0] == 200
            return
        except ConnectionError:
            time.sleep(0.1)
    pytest.fail("the server does not answer after the crowd left")


def test_too_many_photographs_at_once(camera, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(camera.view, "_segment_photo", lambda data: gate.wait(10) and b"done")
    codes = []
    threads = [
        threading.Thread(target=lambda: codes.append(camera.request("POST", "/api/segment", photo())[0]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(codes) < 8 - server.MAX_WAITING_PHOTOS and time.monotonic() < deadline:
        time.sleep(0.01)
    gate.set()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200] * server.MAX_WAITING_PHOTOS + [503] * (8 - server.MAX_WAITING_PHOTOS)
