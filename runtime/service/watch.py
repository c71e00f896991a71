"""Around everything: each request is numbered, counted, timed and logged; an ending service refuses new ones."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, MutableMapping
from typing import Any

from cast_sdk.runtime.service.app import PROBES, State, ending
from cast_sdk.runtime.service.guard import Receive, Scope, Send
from cast_sdk.runtime.service.logs import say
from cast_sdk.runtime.service.metrics import Metrics


class Watch:
    """ASGI middleware.

    Args:
        app: what is watched.
        metrics: what counts.
        state: of the service.
        paths: that are counted by name; all others count together.
    """

    def __init__(self, app: Any, metrics: Metrics, state: State, paths: Collection[str]) -> None:
        self._app, self._metrics, self._state, self._paths = app, metrics, state, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, number, status = time.monotonic(), uuid.uuid4().hex[:12], 0

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (b"x-request-id", number.encode())]
                if self._state.draining and not any(name == b"connection" for name, _ in headers):
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        self._state.answering += 1
        try:
            if self._state.draining and scope["path"] not in PROBES:
                await ending()(scope, receive, noted)
            else:
                await self._app(scope, receive, noted)
        finally:
            self._state.answering -= 1
            took = time.monotonic() - start
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(took)
            client = (scope.get("client") or [None])[0]
            ms = round(took * 1e3, 1)
            say("request", id=number, method=scope["method"], path=scope["path"], status=status, ms=ms, client=client)
