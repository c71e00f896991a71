"""What every source of frames has: options, a status that can be watched, and an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cast_sdk.arguments import one_of, real, whole
from cast_sdk.errors import CastError, InputError
from cast_sdk.runtime.inputs.reading import Frame
from cast_sdk.system.opencv import import_cv2
from cast_sdk.system.secrets import mask

FLIPS = ("none", "horizontal", "vertical", "rotate-90", "rotate-180", "rotate-270")


VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"})


MAX_SIDE = 16384  # pixels of a frame that is asked for

State = Literal["opening", "live", "lost", "ended"]


@dataclass(frozen=True)
class Status:
    """What a source is doing, for people: shown on the page and in the terminal."""

    state: State
    message: str = ""
    attempt: int = 0  # of reconnecting
    retry_in: float = 0.0  # seconds until the next attempt


@dataclass(frozen=True)
class SourceOptions:
    """What can be asked of a source.

    Width and height (pixels) and rate (frames per second) are asked of a camera, which may choose near values. Frames
    of files and network streams are resized (with one of both the other follows), files play at `rate` and live
    streams are thinned to it. Flips are named from the viewer's side, rotations are clockwise. `loop` plays files and
    folders again for ever.
    """

    width: int | None = None
    height: int | None = None
    rate: float | None = None
    flip: str = "none"
    loop: bool = False

    def __post_init__(self) -> None:
        one_of(self.flip, "flip", FLIPS)
        for name, value, most in (
            ("width", self.width, MAX_SIDE),
            ("height", self.height, MAX_SIDE),
            ("rate", self.rate, 1000),
        ):
            if value is not None and name == "rate":
                real(value, name, 0, most, above=True)
            elif value is not None:
                whole(value, name, 1, most)


class Source:
    """Frames by iteration, with a state that can be watched.

    Attributes:
        uri: for people; passwords are hidden.
        live: a camera or a stream: frames that nobody takes are lost, and a lost connection is opened again.
        status: what it does now.
        skipped: frames that arrived damaged and were left out.
    """

    def __init__(self, uri: str, options: SourceOptions, *, live: bool) -> None:
        self.uri, self.options, self.live = mask(uri), options, live
        self.on_status: Callable[[Status], None] | None = None
        self.status = Status("opening")
        self.skipped = 0
        self._stopping = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        try:
            yield from self.frames()
        finally:
            if self.status.state != "ended":
                self.set_status(Status("ended"))

    def frames(self) -> Iterator[Frame]:
        """The frames themselves; one implementation per kind of source."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the iteration soon. Safe from any thread."""
        self._stopping.set()

    def leaves_out(self, frame: Frame, error: CastError) -> bool:
        """Whether a frame that cannot be prepared is left out (and counted) rather than the end of the stream."""
        return False

    def set_status(self, status: Status) -> None:
        """Set the status and report it."""
        self.status = status
        if self.on_status is not None:
            self.on_status(status)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def pause(self, seconds: float) -> None:
        """Sleep, but wake up at once when stopped."""
        self._stopping.wait(max(0.0, seconds))

    def paced(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """At most `rate` frames a second, never in bursts after a pause."""
        period = 1.0 / self.options.rate if self.options.rate else 0.0
        due = time.monotonic()
        for frame in frames:
            if self.stopping:
                return
            yield frame
            if period:
                due = max(due + period, time.monotonic() - period)
                self.pause(due - time.monotonic())


def adjusted(frame: npt.NDArray[np.uint8], options: SourceOptions, *, resize: bool) -> npt.NDArray[np.uint8]:
    """A frame after flip and, if asked, resizing: uint8 [h, w, 3]."""
    cv2 = import_cv2()
    if resize and (options.width or options.height):
        height, width = frame.shape[:2]
        target = (
            options.width or max(1, round(width * (options.height or 0) / height)),
            options.height or max(1, round(height * (options.width or 0) / width)),
        )
        if max(target) > MAX_SIDE:
            raise InputError(
                f"A frame of {width} x {height} pixels would become {target[0]} x {target[1]}.",
                remedy="give both width and height",
            )
        if target != (width, height):
            frame = cv2.resize(frame, target, interpolation=cv2.INTER_AREA)
    if options.flip == "horizontal":
        frame = cv2.flip(frame, 1)
    elif options.flip == "vertical":
        frame = cv2.flip(frame, 0)
    elif options.flip != "none":
        turns = {"rotate-90": cv2.ROTATE_90_CLOCKWISE, "rotate-180": cv2.ROTATE_180}
        frame = cv2.rotate(frame, turns.get(options.flip, cv2.ROTATE_90_COUNTERCLOCKWISE))
    return frame
