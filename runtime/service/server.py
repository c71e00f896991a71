"""The service as a server: uvicorn, the guard, and an end that answers what it has accepted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from types import FrameType

from cast_sdk.errors import MissingDependencyError
from cast_sdk.runtime.output.page import element_hash
from cast_sdk.runtime.runtime import Runtime
from cast_sdk.system.installing import pip_install

try:
    import uvicorn

    from cast_sdk.runtime.service.app import MAX_IMAGES, PROBES, State, build
    from cast_sdk.runtime.service.guard import LOOPBACK, Gate, security_headers
    from cast_sdk.runtime.service.guide import STYLE
    from cast_sdk.runtime.service.logs import say
    from cast_sdk.runtime.service.metrics import Metrics
    from cast_sdk.runtime.service.queue import Queue
    from cast_sdk.runtime.service.watch import Watch
    from cast_sdk.runtime.service.web import choose_token, listen, server_options, url
except ImportError as error:
    raise MissingDependencyError(
        "FastAPI, uvicorn, prometheus-client or python-multipart, which the service needs, cannot be imported.",
        found=str(error),
        remedy=pip_install("serve"),
    ) from error

END_SECONDS = 60  # that requests under way may take once the service ends


def default_places(threads: int) -> int:
    """Places for so many threads; never fewer than the photographs of one request."""
    return max(MAX_IMAGES, 8 * threads)


class Service:
    """The JSON service of one model. `run` serves until a signal or `end`.

    Args:
        runtime: the model; closed by `close`.
        host, port: where to listen; port 0: any free one.
        token: needed by every client but for the probes. Default: none on a loopback address, else a new random one.
        threads: that work on photographs.
        places: photographs that wait or are worked on, at most.
        batch: photographs in one pass of the network, at most.
        linger: seconds for which new requests are still answered, with 503, after the service was told to end: a load
            balancer needs them to notice.

    Raises:
        MissingDependencyError: FastAPI, uvicorn, ... are missing.
        InputError: the address cannot be used, or the token is too short.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        threads: int = 2,
        places: int = MAX_IMAGES,
        batch: int = 1,
        linger: float = 1.0,
    ) -> None:
        self.token = choose_token(token, host)
        self._socket = listen(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self.state, self._linger = State(), linger
        self.metrics = Metrics(lambda: self.queue.taken)
        self.queue = Queue(runtime, threads=threads, places=places, batch=batch, observe=self.metrics.batches.observe)
        app = build(self.queue, self.metrics, self.state, token=self.token is not None)
        guarded = Gate(
            app,
            token=self.token,
            loopback=host in LOOPBACK,
            cookie=f"cast_serve_{self.port}",
            program="cast-serve",
            headers=security_headers("'none'", element_hash(f"<style>{STYLE}</style>", "style")),
            public=PROBES,
        )
        watched = Watch(guarded, self.metrics, self.state, app.openapi()["paths"])
        config = uvicorn.Config(
            watched, **server_options(ws="none", lifespan="off", timeout_graceful_shutdown=END_SECONDS, log_config=None)
        )
        self._server = _Server(config, self)

    @property
    def url(self) -> str:
        """Address, with the token where one is needed."""
        return url(self.host, self.port, self.token)

    @property
    def started(self) -> bool:
        """True once requests are answered."""
        return bool(self._server.started)

    def run(self) -> None:
        """Serve. SIGTERM and SIGINT end it as `end` does; a second one at once."""
        self._server.run(sockets=[self._socket])

    def end(self) -> None:
        """Refuse new requests, finish those under way, then return from `run`. From any thread."""
        self.state.draining = True

    def close(self) -> None:
        """Free the threads, the socket and the model."""
        self.queue.close()
        self._socket.close()
        self.queue.runtime.close()

    async def drained(self) -> None:
        """Waits for the end of what was accepted."""
        say("ending", answering=self.state.answering)
        begun = time.monotonic()
        while time.monotonic() - begun < END_SECONDS:
            if not self.state.answering and time.monotonic() - begun >= self._linger:
                return
            await asyncio.sleep(0.05)


class _Server(uvicorn.Server):
    """uvicorn that goes on answering what it has accepted when it is told to end."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets the service end; the second one ends it."""
        if self._service.state.draining or sig not in (signal.SIGTERM, signal.SIGINT):
            super().handle_exit(sig, frame)
        self._service.end()

    async def main_loop(self) -> None:
        """As uvicorn's, until the service is told to end; then until it has answered."""
        counter = 0
        should_exit = await self.on_tick(counter)
        while not should_exit and not self._service.state.draining:
            counter = (counter + 1) % 864000
            await asyncio.sleep(0.1)
            should_exit = await self.on_tick(counter)
        if self._service.state.draining and not self.should_exit:
            drained = asyncio.ensure_future(self._service.drained())
            while not drained.done() and not self.should_exit:
                await asyncio.sleep(0.05)
                await self.on_tick(counter)
            drained.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await drained
