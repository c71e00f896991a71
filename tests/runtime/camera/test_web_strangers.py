"""The server of the live view and those without its token, from other pages or under other names."""

from __future__ import annotations

import contextlib
import socket

import pytest
from live_view import TOKEN, Camera, photo, ws
from standin import StandIn

from cast_sdk.errors import InputError

pytest.importorskip("uvicorn", reason="needs the extra serve")
from websockets.exceptions import InvalidStatus

from cast_sdk.runtime.camera.server import WebView
from cast_sdk.runtime.service import guard

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
