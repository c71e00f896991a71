"""A camera with a live view in this process, and clients for it."""

from __future__ import annotations

import http.client
import socket
import threading
import time

import cv2
import numpy as np
import pytest
from standin import StandIn

pytest.importorskip("uvicorn", reason="needs the extra serve")
from websockets.sync.client import connect

from cast_sdk.runtime.camera.server import WebView

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


def photo(size=(60, 90)) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def ws(camera, path="/api/stream", **options):
    return connect(f"ws://127.0.0.1:{camera.port}{path}", open_timeout=10, **options)


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
