"""Between the camera's thread and the viewers: the newest result, encoded once, handed out at each viewer's pace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cast_sdk.runtime.camera.meter import Meter
from cast_sdk.runtime.camera.packet import pack
from cast_sdk.runtime.sources.base import Status

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation

_log = logging.getLogger(__name__)
CREDIT = 2  # frames sent and not yet confirmed by a viewer: a slow line gets fewer frames, never old ones
VIEW_RATE = 30.0  # frames per second that are encoded at most
HEARTBEAT = 1.0  # seconds between two status messages


class Viewer:
    """One open page. Lives in the server's event loop."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.credit, self.paused = CREDIT, False
        self.packet_sent = self.status_sent = 0  # numbers of the last packet and of the last status

    def receive(self, message: str) -> None:
        """What a page may send: "ack" (a frame is drawn), "pause" or "resume"."""
        if message == "ack":
            self.credit = min(self.credit + 1, CREDIT)
        else:
            self.paused = message == "pause"


class Hub:
    """Takes results from the camera without ever waiting for a viewer.

    `show` and `status` are called by the camera's thread; everything else belongs to the server's event loop. A thread
    of the hub encodes the newest result when somebody looks, so that the work is done once and not by the camera.
    """

    def __init__(self, *, title: str, level: int, levels: int) -> None:
        self.about: dict[str, Any] = {"title": title, "level": level, "levels": levels}
        self.meter = Meter()
        self.viewers: set[Viewer] = set()
        self.packet, self.packet_number = b"", 0
        self.status_text, self.status_number = "", 0  # the status as JSON, and its number
        self.closed = False
        self.state = Status("opening")
        self.latest: Segmentation | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()
        self._taken: Segmentation | None = None
        self._thread = threading.Thread(target=self._encode, name="cast-web-encoder", daemon=True)
        self._thread.start()

    # the camera's side -----------------------------------------------------------------------------------------------

    def show(self, result: Segmentation) -> None:
        """The newest result; at once, whatever the viewers do."""
        self.meter.add(result)
        with self._changed:
            self.latest = result
            self._changed.notify()

    def status(self, status: Status) -> None:
        """The state of the source."""
        self.state = status
        self._call(self.announce)

    def close(self) -> None:
        """Let go of all viewers and of the encoder."""
        with self._changed:
            self.closed = True
            self._changed.notify()
        self._thread.join(5)
        self._call(self._wake)

    # the viewers' side -----------------------------------------------------------------------------------------------

    async def beat(self) -> None:
        """Belongs to the server's event loop: a fresh status every second."""
        self._loop = asyncio.get_running_loop()
        while not self.closed:
            self.announce()
            await asyncio.sleep(HEARTBEAT)

    def announce(self) -> None:
        """Write the status once for all viewers and wake them."""
        self.status_text, self.status_number = json.dumps(self.describe()), self.status_number + 1
        self._wake()

    def due(self, viewer: Viewer) -> bool:
        """Whether a viewer should get the newest packet now."""
        return viewer.credit > 0 and not viewer.paused and viewer.packet_sent != self.packet_number

    def join(self) -> Viewer:
        viewer = Viewer()
        self.viewers.add(viewer)
        with self._changed:
            if self.latest is not self._taken:
                viewer.packet_sent = (
                    self.packet_number
                )  # the packet is from when somebody last looked; a fresh one is on its way
            self._changed.notify()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)

    def describe(self) -> dict[str, Any]:
        """What a page shows beside the picture: JSON values."""
        state = self.state
        return {
            "type": "status",
            **self.about,
            "source": {
                "state": state.state,
                "message": state.message,
                "attempt": state.attempt,
                "retry_in": round(state.retry_in, 1),
            },
            "viewers": len(self.viewers),
            **self.meter.summary(),
        }

    # ------------------------------------------------------------------------------------------------------------------

    def _encode(self) -> None:
        last = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.closed or (bool(self.viewers) and self.latest is not self._taken))
                if self.closed:
                    return
                result = self._taken = self.latest
            assert result is not None
            try:
                packet = pack(result, fps=self.meter.rate())
            except Exception:
                # One frame that cannot be shown must not end the view; the camera and its other outputs go on.
                _log.exception("frame %d could not be encoded for the web view", result.index)
                continue
            self._call(self._publish, packet)
            pause = last + 1 / VIEW_RATE - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            last = time.monotonic()

    def _publish(self, packet: bytes) -> None:
        self.packet, self.packet_number = packet, self.packet_number + 1
        self._wake()

    def _wake(self) -> None:
        for viewer in self.viewers:
            viewer.news.set()

    def _call(self, action: Callable[..., None], *arguments: Any) -> None:
        """Run something in the server's event loop, if that still runs."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # closed while the camera ended
                self._loop.call_soon_threadsafe(action, *arguments)
