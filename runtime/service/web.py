"""What both servers do alike: the socket, the address, the body of a request, and how an error is answered."""

from __future__ import annotations

import contextlib
import secrets
import socket
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cast_sdk.errors import CastError, InputError
from cast_sdk.runtime.service.guard import LOOPBACK, ImpatientProtocol
from cast_sdk.runtime.service.photos import too_large

UPLOAD_SECONDS = 20.0
MIN_TOKEN_LENGTH = 12


def choose_token(token: str | None, host: str) -> str | None:
    """The token that a server asks for: the given one; none on a loopback address, a new random one elsewhere.

    Raises:
        InputError: it is too short.
    """
    if token is not None and len(token) < MIN_TOKEN_LENGTH:
        raise InputError(f"The token has only {len(token)} characters.", remedy=f"use at least {MIN_TOKEN_LENGTH}")
    return token or (None if host in LOOPBACK else secrets.token_urlsafe(24))


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, :PORT or PORT; [::1]:8000 for IPv6.

    Raises:
        InputError: for anything else.
    """
    host, colon, port = text.rpartition(":")
    host = host.strip("[]") if colon else ""
    if not port.isdecimal() or int(port) > 65535:
        raise InputError(f"{text!r} is not an address HOST:PORT.", remedy="for example --serve 127.0.0.1:8000")
    return host or "127.0.0.1", int(port)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket.

    Raises:
        InputError: the address cannot be used.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)  # accepted sockets inherit it
        listener.bind(address)
        return listener
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one of a host
        raise InputError(
            f"The server cannot listen on {host}:{port}.",
            found=getattr(error, "strerror", None) or str(error),
            remedy="choose a free port (--serve 127.0.0.1:8001) and an address of this machine (0.0.0.0: all)",
        ) from error


def server_options(**more: Any) -> dict[str, Any]:
    """Options of `uvicorn.Config` for a server that strangers may reach."""
    return {
        "http": ImpatientProtocol,
        "h11_max_incomplete_event_size": 16384,
        "timeout_keep_alive": 5,
        "log_level": "warning",
        "access_log": False,  # it would write tokens that come in addresses
        "server_header": False,
        **more,
    }


def url(host: str, port: int, token: str | None) -> str:
    """Address for a browser, with the token where one is needed."""
    host = _lan_address() if host in ("0.0.0.0", "::", "") else host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/" + (f"?token={quote(token, safe='')}" if token else "")


async def read_body(request: Request, limit: int, *, form: bool = False) -> bytes:
    """The body of a request: a photograph, or a whole form.

    Raises:
        TooLargeError: it has more bytes than `limit`.
    """
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or int(stated) > limit:
        raise too_large(limit, found=f"a content length of {stated[:20]} bytes", form=form)
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > limit:
            raise too_large(limit, form=form)
    return bytes(data)


def failed(code: int, error: CastError) -> Response:
    """The answer to a request that could not be served."""
    return JSONResponse({"error": error.problem, "found": error.found}, status_code=code)


def _lan_address() -> str:
    """This machine's address on its network. Nothing is sent: connecting UDP only chooses a route."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
