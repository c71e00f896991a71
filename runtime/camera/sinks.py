"""A camera that runs until it is told to stop, shown in a window, a browser, a recording and the terminal."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from cast_sdk.errors import MissingDependencyError
from cast_sdk.runtime.camera.meter import Meter
from cast_sdk.runtime.sources.base import Status
from cast_sdk.system.opencv import import_cv2
from cast_sdk.system.signals import interruptible

if TYPE_CHECKING:
    from cast_sdk.runtime.output.recorder import Recorder
    from cast_sdk.runtime.result import Segmentation
    from cast_sdk.runtime.streaming import Stream


class Stop(Exception):
    """Raised by a sink to end the camera: the window was closed, or enough frames were seen."""


class Sink(Protocol):
    """Something that takes results."""

    def show(self, result: Segmentation) -> None: ...

    def status(self, status: Status) -> None: ...

    def close(self) -> None: ...


def run(stream: Stream, sinks: Sequence[Sink], *, frames: int = 0) -> int:
    """Hand every result to every sink until the source ends, a sink stops, or SIGINT or SIGTERM arrives.

    Args:
        stream: see `cast_sdk.runtime.streaming.stream`.
        sinks: who takes the results; whoever made them closes them.
        frames: stop after so many results; 0: go on.

    Returns:
        Number of results.

    Raises:
        StreamError: the source or a stage failed.
    """
    count = 0
    with contextlib.suppress(Stop, KeyboardInterrupt), interruptible(), stream:
        for result in stream:
            for sink in sinks:
                sink.show(result)
            count += 1
            if count == frames:
                break
    return count


class Terminal:
    """One line about what is seen: rewritten in place on a terminal, a new one every ten seconds elsewhere."""

    def __init__(self) -> None:
        self.meter = Meter()
        self._tty = sys.stderr.isatty()
        self._every = 0.5 if self._tty else 10.0
        self._next = 0.0

    def show(self, result: Segmentation) -> None:
        self.meter.add(result)
        now = time.monotonic()
        if now < self._next or self.meter.frames < 2:
            return
        self._next = now + self._every
        times = self.meter.timing()
        parts = [f"{self.meter.rate():5.1f} fps"]
        parts += [result.verdict] if result.verdict else []
        parts += [f"{stage} {times[stage]:.0f} ms" for stage in ("superpixels", "model", "latency") if stage in times]
        parts += [f"{result.dropped} dropped"] if result.dropped else []
        parts += ["very dark"] if self.meter.dark else []
        self._print("   ".join(parts), again=True)

    def status(self, status: Status) -> None:
        if status.state == "lost":
            self._print(f"camera lost: {status.message}; attempt {status.attempt} in {status.retry_in:.1f} s")
        elif status.state == "live":
            self._print("camera is live")

    def close(self) -> None:
        meter = self.meter
        seconds = time.monotonic() - meter.started
        self._print(f"{meter.frames} frames in {seconds:.1f} s, {meter.dropped} dropped")

    def _print(self, text: str, *, again: bool = False) -> None:
        if self._tty:
            sys.stderr.write(f"\r\x1b[K{text}" + ("" if again else "\n"))
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()


class Recording:
    """The sink of `--record`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def show(self, result: Segmentation) -> None:
        self._recorder.write(result)

    def status(self, status: Status) -> None:
        """A recording has nothing to say about a lost camera: its film repeats the last frame meanwhile."""

    def close(self) -> None:
        self._recorder.close()


class Window:
    """A window on this machine. Keys: 0-9 level, + and - opacity, b boundaries, space pause, s snapshot, q or Esc end.

    Raises:
        MissingDependencyError: no display, or an OpenCV without windows.
    """

    TITLE = "cast camera"

    def __init__(self, *, level: int, levels: int) -> None:
        self._cv2 = import_cv2()
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise MissingDependencyError(
                "There is no display to open a window on.",
                found="neither DISPLAY nor WAYLAND_DISPLAY is set",
                remedy="see it in a browser: --serve 127.0.0.1:8000 (over SSH: ssh -L 8000:127.0.0.1:8000 HOST)",
            )
        self._level, self._levels, self._alpha, self._lines, self._paused = level, levels, 0.55, True, False
        try:
            self._cv2.namedWindow(self.TITLE, self._cv2.WINDOW_NORMAL)
        except self._cv2.error as error:
            raise MissingDependencyError(
                "This OpenCV cannot open a window.",
                found="it is built without windows (opencv-python-headless?)",
                remedy="install opencv-python, or use --serve 127.0.0.1:8000",
            ) from error

    def show(self, result: Segmentation) -> None:
        while True:
            level = self._level if self._levels else None  # a model without segments: the frame and its class
            picture = result.plot(level, alpha=self._alpha, boundaries=self._lines)
            self._cv2.imshow(self.TITLE, picture)
            key = self._cv2.waitKey(30 if self._paused else 1) & 0xFF
            if key in (27, ord("q")) or self._cv2.getWindowProperty(self.TITLE, self._cv2.WND_PROP_VISIBLE) < 1:
                raise Stop
            self._press(chr(key) if key < 128 else "", result)
            if not self._paused:
                return

    def status(self, status: Status) -> None:
        """The window keeps its last picture; the terminal tells what happened."""

    def close(self) -> None:
        with contextlib.suppress(self._cv2.error):
            self._cv2.destroyWindow(self.TITLE)

    def _press(self, key: str, result: Segmentation) -> None:
        if key.isdecimal():
            self._level = min(int(key), self._levels)
        elif key in ("+", "="):
            self._alpha = min(1.0, self._alpha + 0.1)
        elif key == "-":
            self._alpha = max(0.0, self._alpha - 0.1)
        elif key == "b":
            self._lines = not self._lines
        elif key == " ":
            self._paused = not self._paused
        elif key == "s":
            result.save(f"cast-{time.strftime('%Y%m%d-%H%M%S')}.png", self._level)


class Watchdog:
    """Tells systemd that frames flow, so that a service whose camera or GPU hangs is restarted (WatchdogSec=).

    Outside of systemd (no NOTIFY_SOCKET) it does nothing. While a camera is away and reconnecting, the service is
    healthy and says so.
    """

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._next = 0.0

    def show(self, result: Segmentation) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 1.0
            self._notify("WATCHDOG=1")

    def status(self, status: Status) -> None:
        text = f"{status.state} {status.message}".strip().replace("\n", " ")
        self._notify(f"READY=1\nWATCHDOG=1\nSTATUS={text}")

    def close(self) -> None:
        self._notify("STOPPING=1")

    def _notify(self, text: str) -> None:
        if not self._address:
            return
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as line:
            line.sendto(text.encode(), self._address)
