"""What the server refuses: strangers, foreign pages, and clients that are slow on purpose."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HEADER_SECONDS = 10.0  # to send a complete request head
REQUEST_SECONDS = 60.0  # for a whole request and its answer; websockets have their own limits
MAX_CONNECTIONS = 256

_ASK = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Token needed</title><style>body{font:16px/1.5 system-ui;background:#0b0f14;color:#dbe4ee;display:grid;
place-items:center;min-height:95vh;margin:0}form{max-width:22rem;padding:1rem}input,button{font:inherit;width:100%;
box-sizing:border-box;padding:.7rem;border-radius:.6rem;border:1px solid #2a3542;background:#131a22;color:inherit}
button{margin-top:.7rem;background:#0f766e;border:0;color:#fff}</style><form method="get" action="/"><h1>Token
needed</h1><p>PROGRAM printed a token where it was started. Open the address with it, or paste it here.</p>
<input name="token" type="password" aria-label="Token" autofocus autocomplete="off"><button>Open the view</button>
</form></html>"""
_ASK_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
}


class Gate:
    """ASGI middleware: host, origin and token are checked before anything else happens.

    Args:
        app: what is guarded.
        token: needed for everything; None: no token (loopback only).
        loopback: the server listens on this machine only. Then the Host header must name it, so that a foreign name
            that resolves to 127.0.0.1 (DNS rebinding) gets nothing.
        cookie: name of the cookie that keeps the token in a browser.
        program: that printed the token.
        headers: added to every answer that does not set them itself.
        public: paths that need no token.
    """

    def __init__(
        self,
        app: Any,
        *,
        token: str | None,
        loopback: bool,
        cookie: str,
        program: str,
        headers: dict[str, str] | None = None,
        public: Collection[str] = (),
    ) -> None:
        self.app, self.loopback, self.cookie = app, loopback, cookie
        self._program, self._public = program, frozenset(public)
        self._headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self._digest = None if token is None else _digest(token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def send_more(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                more = [header for header in self._headers if header[0] not in present]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        answer = self._judge(scope)
        if answer is None:
            await self.app(scope, receive, send_more)
        elif scope["type"] == "http":
            await answer(scope, receive, send_more)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 4000 + answer.status_code})

    def _judge(self, scope: Scope) -> Response | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.loopback and _hostname(f"//{host}") not in LOOPBACK:
            return _refused(421, "This server answers to localhost only.")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host.lower():
            return _refused(403, "Pages of other sites may not use this server.")
        # A link may lead here from anywhere; a picture, script or request of a foreign page may not.
        followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not followed:
            return _refused(403, "Pages of other sites may not use this server.")
        if self._digest is None or (scope["type"] == "http" and scope["path"] in self._public):
            return None
        asked = _query_token(scope.get("query_string", b"").decode("latin-1"))
        if asked and self._right(asked):
            if scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "GET":
                answer = RedirectResponse("/", status_code=303)
                answer.set_cookie(self.cookie, _cookie_value(asked), httponly=True, samesite="strict", path="/")
                return answer
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._right(bearer.strip().encode("latin-1")):
            return None
        if self._known(_cookie(headers.get("cookie", ""), self.cookie)):
            return None
        if scope["type"] == "http" and scope["path"] == "/":
            return HTMLResponse(_ASK.replace("PROGRAM", self._program), status_code=401, headers=_ASK_HEADERS)
        how = f"send it as 'authorization: Bearer TOKEN', or open the address that {self._program} printed"
        return _refused(401, f"A token is needed: {how}.")

    def _right(self, token: str | bytes) -> bool:
        # Digests have one length, so that neither length nor content of the token shows in the time this takes.
        return self._digest is not None and hmac.compare_digest(_digest(token), self._digest)

    def _known(self, cookie: str) -> bool:
        expected = "" if self._digest is None else self._digest.hex()
        return hmac.compare_digest(cookie.encode("utf-8", "surrogateescape"), expected.encode()) and bool(expected)


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that closes connections which do not send a request in time, or of which there are too many."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._since = self.loop.time()
        self._check = self.loop.call_later(HEADER_SECONDS, self._look)
        if len(self.connections) > MAX_CONNECTIONS:
            # Whoever has waited longest without a request goes, so that idle connections lock nobody out.
            others = (other for other in self.connections if isinstance(other, ImpatientProtocol) and other is not self)
            idle = [other for other in others if not other.working]
            (min(idle, key=lambda other: other._since) if idle else self).transport.abort()

    @property
    def working(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        self._check.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()

    def _look(self) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return  # gone, or a websocket by now
        if self.loop.time() - self._since >= (REQUEST_SECONDS if self.working else HEADER_SECONDS) - 0.01:
            self.transport.abort()
        else:
            self._check = self.loop.call_later(1.0, self._look)


def security_headers(script: str, style: str) -> dict[str, str]:
    """Headers for every answer: only the page's own script and style run, nothing is framed, cached or sniffed."""
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        f"script-src {script}; style-src {style}; img-src 'self' blob: data:; connect-src 'self'"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
    }


def _refused(code: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status_code=code)


def _hostname(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _query_token(query: str) -> str:
    try:
        return parse_qs(query, max_num_fields=32).get("token", [""])[-1]
    except ValueError:
        return ""


def _netloc(address: str) -> str:
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""


def _cookie(header: str, name: str) -> str:
    """Value of a cookie. Cookies of other programs on this host may be of any form and are passed over."""
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value.strip('"')
    return ""


def _cookie_value(token: str) -> str:
    """What a browser keeps in the token's place: hexadecimal digits, which need no quoting."""
    return _digest(token).hex()


def _digest(token: str | bytes) -> bytes:
    data = token.encode("utf-8", "surrogateescape") if isinstance(token, str) else token
    return hashlib.sha256(data).digest()
