"""Images behind addresses, from a local server that does what servers do wrong."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cast_sdk import Runtime, bundled
from cast_sdk.errors import InputError, TooLargeError
from cast_sdk.runtime.inputs.addresses import download, is_address
from cast_sdk.runtime.inputs.reading import read_frame

PHOTO = bundled.photos()[0].read_bytes()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/turns/"):
            left = int(path.removeprefix("/turns/"))
            return self.redirect(f"/turns/{left - 1}" if left else "/photo")
        if path == "/file":
            return self.redirect("file:///etc/passwd")
        if path == "/ftp":
            return self.redirect("ftp://127.0.0.1/x.jpg")
        if path == "/missing":
            return self.send_error(404)
        body = {"/photo": PHOTO, "/page": b"<html>not a photo</html>", "/endless": b"x" * 3_000_000}.get(path, PHOTO)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")  # wrong on purpose: the content tells
        if path not in ("/endless", "/drip"):
            self.send_header("Content-Length", str(len(body) + (path == "/short")))
        self.end_headers()
        if path == "/drip":
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                if self.server.stopped.wait(0.05):
                    return None
            return None
        self.wfile.write(body)
        return None

    def redirect(self, target):
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.stopped = threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.stopped.set()
    server.shutdown()
    server.server_close()


def test_an_address_gives_what_the_file_gives(server):
    with Runtime() as runtime:
        far, near = runtime.segment(f"{server}/photo?token=geheim"), runtime.segment(PHOTO)
    assert np.array_equal(far.embedding, near.embedding)
    assert far.source == f"{server}/photo?token=***"


def test_redirects_are_followed_so_far(server):
    assert download(f"{server}/turns/4") == PHOTO
    with pytest.raises(InputError, match="redirects too often"):
        download(f"{server}/turns/6")
    with pytest.raises(InputError, match="not allowed"):
        download(f"{server}/file")
    with pytest.raises(InputError, match="another protocol"):
        download(f"{server}/ftp")


def test_the_size_is_limited_whether_it_is_stated_or_not(server):
    for path in ("photo", "endless"):
        with pytest.raises(TooLargeError, match="has more than"):
            download(f"{server}/{path}", max_bytes=10_000)


def test_the_time_is_limited(server):
    started = time.monotonic()
    with pytest.raises(InputError, match="did not come in time"):
        download(f"{server}/drip", seconds=0.3)
    assert time.monotonic() - started < 5  # the server would go on for as long


@pytest.mark.parametrize(
    "path, message",
    [
        ("/missing", "404"),
        ("/short", "ended early"),
        ("/page", "not of a format that is read"),
    ],
)
def test_what_servers_do_wrong(server, path, message):
    with pytest.raises(InputError, match=message):
        read_frame(f"{server}{path}?password=geheim")
    with pytest.raises(InputError) as caught:
        read_frame(f"{server}{path}?password=geheim")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.jpg", "http://", "http://[::1/x", "http://a b/x.jpg"])
def test_addresses_that_lead_nowhere(address):
    with pytest.raises(InputError, match="cannot be fetched"):
        read_frame(address)


def test_what_an_address_is():
    assert is_address("HTTPS://x/y.jpg") and not is_address("httpx.jpg") and not is_address("ftp://x/y")
