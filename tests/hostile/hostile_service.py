"""cast-serve before requests of every odd kind: JSON, forms, photographs, parameters."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hostile_harness import Case
from hostile_inputs import FILES, NO_BYTES, write_file
from hostile_network import exchange, look, refuse
from standin import StandIn

if TYPE_CHECKING:
    from hostile_doors import Doors

_FORM = "multipart/form-data; boundary=line"
_PATHS = ("/v1/segment", "/v1/segment-batch", "/v1/embedding")


def cases(doors: Doors) -> Iterator[Case]:
    """All of them."""
    photo = doors.good["photo"].read_bytes()
    for index, (kind, (content, body)) in enumerate(_json().items()):
        path = _PATHS[index % 3]
        yield Case("serve, JSON", kind, lambda p=path, c=content, b=body: _ask(p, c, b, photo), True)
    for kind, (content, body) in _forms(photo).items():
        for path in _PATHS[:2]:
            refused = kind not in _PERHAPS and (kind, path) != ("two of them", "/v1/segment-batch")
            act = lambda p=path, c=content, b=body: _ask(p, c, b, photo)  # noqa: E731
            yield Case("serve, form", f"{kind}, to {path}", act, refused)
    for kind in FILES:
        if kind not in NO_BYTES:
            for content in ("image/png", _FORM):

                def act(kind: str = kind, content: str = content) -> None:
                    body = write_file(kind, Path("bad.png"), photo, doors.seed).read_bytes()
                    Path("bad.png").unlink()
                    _ask("/v1/segment", content, _form(body) if content == _FORM else body, photo)

                yield Case("serve, photograph", f"{kind} as {content.partition(';')[0]}", act)
    for name in ("level", "top", "masks", "nothing"):
        for kind, value in _QUERIES.items():
            path = f"/v1/segment?{name}={value}"
            yield Case(f"serve, parameter {name}", kind, lambda p=path: _ask(p, "image/png", photo, photo))


# Forms that may be taken.
_PERHAPS = (
    *("text after the end", "capitals", "quoted boundary", "odd name of the file", "as base64", "no empty line"),
    *("lone line feeds", "several of them", "text in the field", "huge header", "no end", "an address for a name"),
)
_QUERIES = {
    "nothing": "",
    "minus one": "-1",
    "huge": "9" * 400,
    "exponent": "1e99",
    "half": "0.5",
    "nan": "nan",
    "word": "many",
    "digits of another script": "%D9%A1",
    "not UTF-8": "%ff%fe",
    "NUL": "%00",
    "half an escape": "%",
    "twice": "1&level=2&top=3&masks=no",
    "a list": "[0,1]",
    "script": "%3Cscript%3E",
    "long": "x" * 9000,
}


def _json() -> dict[str, tuple[str, bytes]]:
    """Content type and body of requests in JSON, which the service does not take."""
    found = {
        "empty object": b"{}",
        "list": b"[1, 2]",
        "image in base64": b'{"image": "iVBORw0KGgo="}',
        "nothing": b"",
        "null": b"null",
        "NaN": b'{"image": NaN}',
        "cut": b'{"image": "iVBO',
        "deep": b"[" * 100_000,
        "not UTF-8": b'{"image": "\xff\xfe"}',
        "surrogate": b'{"image": "\\udcff"}',
        "long number": b"9" * 10_000,
        "same key twice": b'{"image": 1, "image": 2}',
    }
    kinds = {kind: ("application/json", body) for kind, body in found.items()}
    kinds["another charset"] = ("application/json; charset=utf-16", json.dumps({"image": "x"}).encode("utf-16"))
    kinds["form of an address"] = ("application/x-www-form-urlencoded", b"image=%ff&level=1")
    kinds["unknown type"] = ("\xff/\xfe", b"{}")
    return kinds


def _form(*bodies: bytes, head: str = 'content-disposition: form-data; name="image"; filename="a.png"') -> bytes:
    return b"".join(b"--line\r\n" + head.encode() + b"\r\n\r\n" + body + b"\r\n" for body in bodies) + b"--line--\r\n"


def _forms(photo: bytes) -> dict[str, tuple[str, bytes]]:
    """Content type and body of odd forms."""
    good = _form(photo)
    named = 'content-disposition: form-data; name="image"; filename="'
    return {
        "no boundary": ("multipart/form-data", good),
        "empty boundary": ("multipart/form-data; boundary=", good),
        "another boundary": ("multipart/form-data; boundary=other", good),
        "long boundary": ("multipart/form-data; boundary=" + "b" * 5000, good),
        "boundary that is not UTF-8": ("multipart/form-data; boundary=\xff", good),
        "two boundaries": ("multipart/form-data; boundary=line; boundary=other", good.replace(b"line", b"neither")),
        "quoted boundary": ('multipart/form-data; boundary="line"', good),
        "capitals": ("MULTIPART/Form-Data; boundary=line", good),
        "other multipart": ("multipart/mixed; boundary=line", good),
        "odd charset": ("multipart/form-data; boundary=line; charset=nothing", _form(b"x")),
        "empty": (_FORM, b""),
        "only the end": (_FORM, b"--line--\r\n"),
        "no end": (_FORM, good[:-10]),
        "cut": (_FORM, good[: len(good) // 2]),
        "cut in a head": (_FORM, good[:30]),
        "text before the first": (_FORM, b"hello" + good),
        "text after the end": (_FORM, good + b"hello"),
        "lone line feeds": (_FORM, good.replace(b"\r\n", b"\n")),
        "no empty line": (_FORM, good.replace(b"\r\n\r\n", b"\r\n", 1)),
        "no head": (_FORM, _form(photo, head="")),
        "no name": (_FORM, _form(photo, head='content-disposition: form-data; filename="a.png"')),
        "no disposition": (_FORM, _form(photo, head="content-type: image/png")),
        "head without a colon": (_FORM, _form(photo, head="content-disposition")),
        "huge header": (_FORM, _form(photo, head=named + "a" * 100_000 + '"')),
        "many headers": (_FORM, _form(photo, head="\r\n".join([named + 'a"', *["x-a: b"] * 2000]))),
        "another field": (_FORM, _form(photo, head='content-disposition: form-data; name="picture"; filename="a"')),
        "text in the field": (_FORM, _form(b"a.png", head='content-disposition: form-data; name="image"')),
        "an address for a name": (_FORM, _form(photo, head=named + 'http://127.0.0.1:9/a"')),
        "odd name of the file": (_FORM, _form(photo, head=named + '../../etc/passwd\xff"')),
        "name in another coding": (_FORM, _form(b"x", head=named + "a\"; filename*=nothing''%ff")),
        "as base64": (_FORM, _form(b"iVBORw0KGgo=", head=named + 'a"\r\ncontent-transfer-encoding: base64')),
        "empty file": (_FORM, _form(b"")),
        "no photographs": (_FORM, _form(b"x", b"", b"\xff" * 9)),
        "too many files": (_FORM, _form(*[b"x"] * 17)),
        "too many fields": (_FORM, _form(*[b"x"] * 1000, head='content-disposition: form-data; name="a"')),
        "form in a form": (_FORM, _form(good, head="content-type: multipart/mixed; boundary=line")),
        "several of them": (_FORM, _form(photo, b"x")),
        "two of them": (_FORM, _form(photo, photo)),
    }


def _ask(path: str, content: str, body: bytes, photo: bytes) -> None:
    """Send a request to a live service and look at the answer; then a good request must be answered well."""
    from cast_sdk.runtime.service.server import Service

    service = Service(StandIn(), port=0, threads=1, linger=0.0)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        while not service.started:
            time.sleep(0.005)
        answer = look(exchange(service.port, _post(path, content, body), ends=False))
        if answer and not answer.startswith(b"HTTP/1.1 2"):
            head, _, said = answer.partition(b"\r\n\r\n")
            if b"application/json" in head:
                assert json.loads(said)["error"].strip(), answer[:200]
        good = exchange(service.port, _post("/v1/segment?top=1", "image/png", photo), ends=False)
        assert good.startswith(b"HTTP/1.1 200") and json.loads(good.partition(b"\r\n\r\n")[2])["top"], good[:200]
        if path.startswith("/v1/segment-batch") and answer.startswith(b"HTTP/1.1 200"):
            results = json.loads(answer.partition(b"\r\n\r\n")[2])["results"]
            answer = answer if any("top" in one for one in results) else b"HTTP/1.1 415 not one of them"
        refuse(answer)
    finally:
        service.end()
        thread.join(30)
        service.close()


def _post(path: str, content: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-type: {content}\r\n"
    return head.encode("latin-1") + f"content-length: {len(body)}\r\n\r\n".encode() + body
