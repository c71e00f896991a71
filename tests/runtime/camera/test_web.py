"""The server of the live view against good clients, strangers and hostile ones. The camera never notices."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import io
import json
import re
import socket
import struct
import threading
import time
import zlib

import cv2
import numpy as np
import pytest
from standin import StandIn

from cast_sdk.errors import InputError
from cast_sdk.runtime.camera.packet import pack, unpack

pytest.importorskip("uvicorn", reason="needs the extra serve")
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from cast_sdk.runtime.camera import server
from cast_sdk.runtime.camera.server import WebView
from cast_sdk.runtime.service import guard, photos
from cast_sdk.runtime.service.web import parse_address

TOKEN = "a-token-for-the-tests"


class Camera:
    """A stand-in camera with a web view, running in a thread."""

    def __init__(self, **options):
        self.rt = StandIn()
        self.view = WebView(self.rt, port=0, **options)
        self.port = self.view.port
        self.stream = self.rt.stream("test://?width=160&height=120&rate=60", on_status=self.view.status)
        self.count = 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        for result in self.stream:
            self.view.show(result)
            self.count += 1

    def close(self):
        self.stream.close()
        self.thread.join()
        self.view.close()

    def request(self, method, path, body=None, headers=None, timeout=15):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()

    def runs(self) -> bool:
        """True when frames still flow."""
        before, deadline = self.count, time.monotonic() + 5
        while self.count < before + 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.count >= before + 5


@pytest.fixture(scope="module")
def camera():
    camera = Camera(title="test://")
    yield camera
    camera.close()


@pytest.fixture(scope="module")
def locked():
    camera = Camera(token=TOKEN)
    yield camera
    camera.close()


@pytest.fixture(autouse=True)
def the_camera_goes_on(request):
    yield
    for name in ("camera", "locked"):
        if name in request.fixturenames:
            assert request.getfixturevalue(name).runs()


def photo(size=(60, 90)) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def ws(camera, path="/api/stream", **options):
    return connect(f"ws://127.0.0.1:{camera.port}{path}", open_timeout=10, **options)


# what good clients get ------------------------------------------------------------------------------------------------


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


# strangers ------------------------------------------------------------------------------------------------------------

PATHS = [("GET", "/"), ("GET", "/api/status"), ("GET", "/api/snapshot.jpg"), ("POST", "/api/segment")]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("token", ["", "?token=wrong", f"?token={TOKEN[:-1]}", "?token=" + "x" * 5000, "?token=%ff%00"])
def test_a_wrong_token_is_refused(locked, method, path, token):
    assert locked.request(method, path + token, b"")[0] == 401


@pytest.mark.parametrize("query", ["", "?token=wrong"])
def test_the_stream_needs_the_token(locked, query):
    with pytest.raises(InvalidStatus) as caught:
        ws(locked, "/api/stream" + query)
    assert caught.value.response.status_code == 403


def test_the_right_token(locked):
    assert locked.view.url.endswith(f"?token={TOKEN}")
    status, _, headers = locked.request("GET", f"/?token={TOKEN}")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    pair = cookie.split(";")[0]
    assert locked.request("GET", "/", headers={"Cookie": pair})[0] == 200
    assert locked.request("GET", "/api/status", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
    with ws(locked, additional_headers={"Cookie": pair}) as line:
        assert line.recv(5)
    with ws(locked, f"/api/stream?token={TOKEN}") as line:
        assert line.recv(5)


def test_other_addresses_get_a_random_token():
    with contextlib.ExitStack() as stack:
        views = [WebView(StandIn(), host=host, port=0) for host in ("0.0.0.0", "0.0.0.0", "127.0.0.1")]
        for view in views:
            stack.callback(view.close)
        first, second, local = (view.token for view in views)
    assert first and len(first) >= 32 and first != second and local is None
    with pytest.raises(InputError, match="at least 12"):
        WebView(StandIn(), port=0, token="short")


def test_foreign_pages_and_names(camera):
    assert camera.request("GET", "/", headers={"Host": "evil.example"})[0] == 421  # DNS rebinding
    assert camera.request("POST", "/api/segment", photo(), {"Origin": "http://evil.example"})[0] == 403
    with pytest.raises(InvalidStatus):
        ws(camera, origin="http://evil.example")
    with ws(camera, origin=f"http://127.0.0.1:{camera.port}") as line:
        assert line.recv(5)


@pytest.mark.parametrize("origin", ["http://[", "http://]", "null", "", "\xff", "http://127.0.0.1:1@evil.example"])
def test_strange_origins_are_refused_with_the_headers_of_every_answer(camera, origin):
    status, _, headers = camera.request("GET", "/api/status", headers={"Origin": origin})
    assert status == 403 and headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_foreign_pages_may_link_here_and_embed_nothing(camera, site):
    def status(path: str, mode: str, dest: str) -> int:
        fetch = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
        return camera.request("GET", path, headers=fetch)[0]

    assert status("/", "navigate", "document") == 200
    assert status("/", "navigate", "iframe") == 403
    assert status("/api/snapshot.jpg", "no-cors", "image") == 403
    assert status("/api/status", "cors", "empty") == 403


ODD_TOKEN = 'a token "with; odd\\ characters, ü+&%'


def test_a_token_that_needs_quoting():
    odd = Camera(token=ODD_TOKEN)
    try:
        _, _, query = odd.view.url.partition("/?")
        status, _, headers = odd.request("GET", f"/?{query}")
        assert status == 303
        pair = headers["set-cookie"].split(";")[0]
        assert odd.request("GET", "/", headers={"Cookie": pair})[0] == 200
        bearer = f"Bearer {ODD_TOKEN}".encode().decode("latin-1")
        assert odd.request("GET", "/api/status", headers={"Authorization": bearer})[0] == 200
    finally:
        odd.close()


@pytest.mark.parametrize("others", ['a="b; c', "=x", "a[b]=1", "ü=1", "bad{name}=1", 'x="'])
def test_cookies_of_other_programs(locked, others):
    _, _, headers = locked.request("GET", f"/?token={TOKEN}")
    pair = headers["set-cookie"].split(";")[0]
    for header in (f"{others}; {pair}", f"{pair}; {others}"):
        assert locked.request("GET", "/", headers={"Cookie": header})[0] == 200
    assert locked.request("GET", "/", headers={"Cookie": others})[0] == 401


def test_idle_connections_lock_nobody_out(camera):
    lines = [socket.create_connection(("127.0.0.1", camera.port), timeout=5) for _ in range(guard.MAX_CONNECTIONS)]
    try:
        assert camera.request("GET", "/api/status")[0] == 200
    finally:
        for line in lines:
            line.close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "x" * 300])
def test_names_that_do_not_resolve(host):
    with pytest.raises(InputError, match="cannot listen on"):
        WebView(StandIn(), host=host, port=0)


# hostile input --------------------------------------------------------------------------------------------------------


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


def raw(camera, data: bytes, wait: float = 5.0) -> bytes:
    with socket.create_connection(("127.0.0.1", camera.port), timeout=wait) as line:
        line.sendall(data)
        out = b""
        try:
            while part := line.recv(65536):
                out += part
                if b"\r\n\r\n" in out:
                    break
        except (TimeoutError, ConnectionError):
            pass
        return out


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


# the rest -------------------------------------------------------------------------------------------------------------


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
