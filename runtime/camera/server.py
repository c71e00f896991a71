"""The server of the live view: Starlette on uvicorn, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cast_sdk.errors import CastError, InputError, MissingDependencyError, TooLargeError
from cast_sdk.runtime.camera.hub import Hub, Viewer
from cast_sdk.runtime.camera.packet import pack
from cast_sdk.runtime.output.drawing import encode
from cast_sdk.runtime.output.page import element_hash, inline_page, page_folder
from cast_sdk.runtime.service.photos import MAX_BYTES, read_photo
from cast_sdk.runtime.sources.base import Status
from cast_sdk.system.installing import pip_install

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    from cast_sdk.runtime.service.guard import LOOPBACK, Gate, security_headers
    from cast_sdk.runtime.service.web import (
        UPLOAD_SECONDS,
        choose_token,
        failed,
        listen,
        read_body,
        server_options,
        url,
    )
except ImportError as error:
    raise MissingDependencyError(
        "Starlette and uvicorn, which serve the web view, cannot be imported.",
        found=str(error),
        remedy=pip_install("serve"),
    ) from error

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation
    from cast_sdk.runtime.runtime import Runtime

MAX_VIEWERS = 64
MAX_WAITING_PHOTOS = 3
SEND_SECONDS = 20.0
_MESSAGES = {"ack", "pause", "resume"}


class WebView:
    """A sink of the camera that shows it in browsers.

    Args:
        rt: the runtime, for photographs that are dropped on the page.
        host, port: where to listen; port 0: any free one.
        token: needed by every client. Default: none on a loopback address, a new random one elsewhere.
        title: name of the source, for the page.
        level: level that pages start with.

    Raises:
        MissingDependencyError: Starlette or uvicorn is missing.
        InputError: the address cannot be used, or the token is too short.
    """

    def __init__(
        self,
        rt: Runtime,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        title: str = "camera",
        level: int = 2,
    ) -> None:
        self.token = choose_token(token, host)
        self._socket = listen(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self.rt = rt
        self.hub = Hub(title=title, level=level, levels=len(rt.spec.clusters))
        self._photos = asyncio.Semaphore(1)
        self._waiting = 0
        folder = Path(__file__).parent
        page = inline_page(folder / "index.html", (folder, page_folder()))
        app = Gate(
            self._app(page),
            token=self.token,
            loopback=host in LOOPBACK,
            program="cast-camera",
            cookie=f"cast_token_{self.port}",
            headers=security_headers(*(element_hash(page, tag) for tag in ("script", "style"))),
        )
        config = uvicorn.Config(
            app,
            **server_options(
                ws="auto",
                ws_max_size=4096,
                ws_per_message_deflate=False,  # JPEGs do not shrink, and every viewer would cost a compression
                timeout_graceful_shutdown=2,
                lifespan="on",
            ),
        )
        self._server = uvicorn.Server(config)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="cast-web", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)
        if not self._server.started:
            self._socket.close()
            raise InputError("The web view did not start.", found=str(self._failure)) from self._failure

    @property
    def url(self) -> str:
        """Address for a browser, with the token where one is needed."""
        return url(self.host, self.port, self.token)

    def show(self, result: Segmentation) -> None:
        """Hand a result to the viewers; never waits."""
        self.hub.show(result)

    def status(self, status: Status) -> None:
        """Tell the viewers about the source."""
        self.hub.status(status)

    def close(self) -> None:
        """End the connections and the threads."""
        self.hub.close()
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as error:
            self._failure = error

    # ------------------------------------------------------------------------------------------------------------------

    def _app(self, page: str) -> Starlette:
        async def index(request: Request) -> Response:
            return HTMLResponse(page)

        async def status(request: Request) -> Response:
            return JSONResponse(self.hub.describe())

        @contextlib.asynccontextmanager
        async def life(app: Starlette) -> AsyncIterator[None]:
            beat = asyncio.create_task(self.hub.beat())
            await asyncio.sleep(0)
            yield
            beat.cancel()

        return Starlette(
            routes=[
                Route("/", index, methods=["GET"]),
                Route("/api/status", status, methods=["GET"]),
                Route("/api/snapshot.jpg", self._snapshot, methods=["GET"]),
                Route("/api/segment", self._segment, methods=["POST"]),
                WebSocketRoute("/api/stream", self._stream),
            ],
            lifespan=life,
        )

    async def _snapshot(self, request: Request) -> Response:
        """The newest frame with an overlay: `level`, `alpha` (0..1) and `boundaries` (0 or 1)."""
        try:
            level = _number(request, "level", self.hub.about["level"], 0, self.hub.about["levels"], whole=True)
            alpha = _number(request, "alpha", 0.55, 0.0, 1.0)
            boundaries = _number(request, "boundaries", 1, 0, 1, whole=True)
        except InputError as error:
            return failed(400, error)
        result = self.hub.latest
        if result is None:
            return JSONResponse({"error": "There is no frame yet."}, status_code=503)
        async with self._photos:
            picture = await asyncio.to_thread(
                lambda: encode(
                    result.plot(int(level) if result.hierarchy else None, alpha=alpha, boundaries=bool(boundaries)),
                    ".jpg",
                )
            )
        return Response(picture, media_type="image/jpeg")

    async def _segment(self, request: Request) -> Response:
        """Segment the photograph in the body; the answer is a packet as in the stream."""
        if self._waiting >= MAX_WAITING_PHOTOS:
            return JSONResponse({"error": "Too many photographs at once."}, 503, headers={"retry-after": "2"})
        self._waiting += 1
        try:
            data = await asyncio.wait_for(read_body(request, MAX_BYTES), UPLOAD_SECONDS)
            async with self._photos:
                packet = await asyncio.to_thread(self._segment_photo, data)
        except TooLargeError as error:
            return failed(413, error)
        except (TimeoutError, asyncio.TimeoutError, ClientDisconnect):
            return JSONResponse({"error": f"An upload takes at most {UPLOAD_SECONDS:g} s."}, 408)
        except InputError as error:
            return failed(415, error)
        except CastError as error:
            return failed(500, error)
        finally:
            self._waiting -= 1
        return Response(packet, media_type="application/octet-stream")

    def _segment_photo(self, data: bytes) -> bytes:
        return pack(self.rt.segment(read_photo(data)), photo=True)

    async def _stream(self, websocket: WebSocket) -> None:
        if len(self.hub.viewers) >= MAX_VIEWERS:
            await websocket.close(1013)
            return
        await websocket.accept()
        viewer = self.hub.join()
        listener = asyncio.create_task(self._listen(websocket, viewer))
        hub = self.hub
        try:
            while not hub.closed and not listener.done():
                if viewer.status_sent != hub.status_number:
                    viewer.status_sent = hub.status_number
                    with _within(SEND_SECONDS):
                        await websocket.send_text(hub.status_text)
                if hub.due(viewer):
                    viewer.packet_sent, viewer.credit = hub.packet_number, viewer.credit - 1
                    with _within(SEND_SECONDS):
                        await websocket.send_bytes(hub.packet)
                viewer.news.clear()
                if (
                    viewer.status_sent == hub.status_number
                    and not hub.due(viewer)
                    and not hub.closed
                    and not listener.done()
                ):
                    await viewer.news.wait()
            if hub.closed:
                await websocket.close(1001)
        except (WebSocketDisconnect, RuntimeError, asyncio.CancelledError):
            return  # gone, or too slow to be worth keeping
        finally:
            hub.leave(viewer)
            listener.cancel()

    async def _listen(self, websocket: WebSocket, viewer: Viewer) -> None:
        try:
            while True:
                message = await websocket.receive_text()
                if message not in _MESSAGES:
                    await websocket.close(1008)
                    return
                viewer.receive(message)
                if self.hub.due(viewer):
                    viewer.news.set()
        except (WebSocketDisconnect, KeyError, RuntimeError, UnicodeError):
            return
        finally:
            viewer.news.set()


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Cancel the current task when the block takes longer. wait_for would make a task for each frame."""
    task = asyncio.current_task()
    assert task is not None
    timer = asyncio.get_running_loop().call_later(seconds, task.cancel)
    try:
        yield
    finally:
        timer.cancel()


def _number(request: Request, name: str, default: float, low: float, high: float, *, whole: bool = False) -> float:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise InputError(f"{name} is not a number from {low:g} to {high:g}.", found=text[:40])
    return value
