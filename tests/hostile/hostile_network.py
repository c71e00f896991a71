"""The camera page before clients that mean harm, or do not know better."""

from __future__ import annotations

import contextlib
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hostile_harness import Case, Refused
from hostile_inputs import FILES, NO_BYTES, write_file

sys.path.append(str(Path(__file__).parent.parent / "support"))
from standin import StandIn

if TYPE_CHECKING:
    from hostile_doors import Doors


def cases(doors: Doors) -> Iterator[Case]:
    """All of them."""
    rng = random.Random(doors.seed)
    photo = doors.good["photo"].read_bytes()
    head = b"host: 127.0.0.1\r\n"
    post = b"POST /api/segment HTTP/1.1\r\n" + head
    requests = {
        "nothing": b"\r\n\r\n",
        "noise": rng.randbytes(3000),
        "not UTF-8": b"GET /\xff\xfe HTTP/1.1\r\n" + head + b"\r\n",
        "no host": b"GET / HTTP/1.1\r\n\r\n",
        "foreign host": b"GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n",
        "foreign origin": b"GET / HTTP/1.1\r\n" + head + b"origin: http://[\r\n\r\n",
        "long address": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + head + b"\r\n",
        "many headers": b"GET / HTTP/1.1\r\n" + head + b"x: y\r\n" * 5000 + b"\r\n",
        "two lengths": b"POST /api/segment HTTP/1.1\r\n" + head + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "negative length": post + b"content-length: -1\r\n\r\n",
        "huge length": post + b"content-length: 99999999999\r\n\r\n",
        "odd level": b"GET /api/snapshot.jpg?level=1e99 HTTP/1.1\r\n" + head + b"\r\n",
        "nan": b"GET /api/snapshot.jpg?alpha=nan HTTP/1.1\r\n" + head + b"\r\n",
        "upwards": b"GET /../../etc/passwd HTTP/1.1\r\n" + head + b"\r\n",
        "other method": b"PROPFIND / HTTP/1.1\r\n" + head + b"\r\n",
        "odd cookie": b"GET / HTTP/1.1\r\n" + head + b'cookie: a="\xff;;=;b\r\n\r\n',
        "socket without key": b"GET /api/stream HTTP/1.1\r\n"
        + head
        + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "chunks": post + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    }
    for kind, data in requests.items():
        yield Case("web", kind, lambda d=data: _ask(d))
    for kind in FILES:
        if kind not in NO_BYTES:

            def act(kind: str = kind) -> None:
                body = write_file(kind, Path("bad.png"), photo, doors.seed).read_bytes()
                Path("bad.png").unlink()
                line = f"POST /api/segment HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
                _ask(line.encode() + body)

            yield Case("web, photograph", kind, act)


def _ask(data: bytes) -> None:
    """Send bytes to a live page and look at the answer; then a good request must be answered well."""
    from cast_sdk.runtime.camera.server import WebView

    with StandIn() as rt:
        view = WebView(rt, port=0)
        try:
            answer = look(exchange(view.port, data))
            good = b"GET /api/status HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
            if not exchange(view.port, good).startswith(b"HTTP/1.1 200"):
                raise AssertionError("no good answer afterwards")
            refuse(answer)
        finally:
            view.close()


def look(answer: bytes) -> bytes:
    """The answer, unless it is none that a server may give."""
    if answer and not answer.startswith(b"HTTP/1.1 "):
        raise AssertionError(f"an answer that is not HTTP: {answer[:80]!r}")
    if b"Traceback" in answer or answer.startswith(b"HTTP/1.1 500"):
        raise AssertionError(answer[:400])
    return answer


def refuse(answer: bytes) -> None:
    """Raise for an answer that is none of success."""
    if not answer.startswith(b"HTTP/1.1 2"):
        raise Refused(answer[:40].decode("latin-1") or "closed")


def exchange(port: int, data: bytes, *, ends: bool = True) -> bytes:
    """What a server on this machine answers to bytes, all of it; `ends`: the client says that nothing more comes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line, contextlib.suppress(ConnectionError):
        line.sendall(data)  # it may hang up before all is sent
        if ends:
            line.shutdown(socket.SHUT_WR)
        while part := line.recv(65536):
            answer += part
    return answer
