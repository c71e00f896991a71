"""Sources read by OpenCV: video files, USB cameras and network streams, with reconnection for the live ones."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cast_sdk.errors import CastError, InputError
from cast_sdk.runtime.inputs.reading import Frame
from cast_sdk.runtime.preprocess import check_text
from cast_sdk.runtime.sources.base import Source, SourceOptions, Status, adjusted
from cast_sdk.system.opencv import import_cv2

_log = logging.getLogger(__name__)
MIN_RETRY, MAX_RETRY = 0.5, 10.0  # seconds
OPEN_TIMEOUT, READ_TIMEOUT = 5.0, 5.0  # seconds
MAX_BAD_READS = 30  # one after the other, then the connection counts as lost


class Capture(Protocol):
    """What cv2.VideoCapture offers and this module uses."""

    def read(self) -> tuple[bool, Any]: ...

    def release(self) -> None: ...


class LiveSource(Source):
    """A source that is opened again, with growing pauses, when it is lost.

    Damaged frames are skipped and counted. A change of the frame's size is passed on: every stage takes frames as they
    come.
    """

    resizes = False  # whether width and height are applied here and not by the device

    def __init__(self, uri: str, options: SourceOptions, *, wait: bool) -> None:
        super().__init__(uri, options, live=True)
        self.wait = wait

    def open(self) -> Capture:
        """A new connection.

        Raises:
            CastError: with the reason, when there is none.
        """
        raise NotImplementedError

    def frames(self) -> Iterator[Frame]:
        attempt, ever = 0, False
        while not self.stopping:
            if attempt == 0:
                self.set_status(Status("opening"))
            try:
                capture = self.open()
            except CastError as error:
                if not (ever or self.wait):
                    raise
                reason = error.problem
            else:
                try:
                    for frame in self._read(capture):
                        if self.status.state != "live":
                            self.set_status(Status("live"))
                        attempt, ever = 0, True
                        yield frame
                finally:
                    capture.release()
                reason = "no more frames from the source"
            if self.stopping:
                return
            pause = min(MAX_RETRY, MIN_RETRY * 2**attempt)
            attempt += 1
            _log.warning("%s: %s; attempt %d in %.1f s", self.uri, reason, attempt, pause)
            self.set_status(Status("lost", reason, attempt, pause))
            self.pause(pause)

    def _read(self, capture: Capture) -> Iterator[Frame]:
        bad, period, due = 0, 1.0 / self.options.rate if self.options.rate else 0.0, 0.0
        while not self.stopping:
            started = time.monotonic()
            good, frame = capture.read()
            if not good or not usable(frame):
                # A failed read that took long is a timeout; a quick one may be one damaged frame.
                bad += 1
                self.skipped += 1
                if bad >= MAX_BAD_READS or time.monotonic() - started > READ_TIMEOUT * 0.9:
                    self.skipped -= bad
                    return
                self.pause(0.01)
                continue
            bad = 0
            now = time.monotonic()
            if self.resizes and period and now < due - period * 0.1:
                continue
            due = max(due, now - period) + period
            yield adjusted(frame, self.options, resize=self.resizes)


class CameraSource(LiveSource):
    """A USB or built-in camera, through Video4Linux where there is one."""

    def __init__(
        self, device: str, options: SourceOptions, *, pixel_format: str | None = None, wait: bool = False
    ) -> None:
        super().__init__(f"v4l2://{device}", options, wait=wait)
        if pixel_format is not None and len(pixel_format) != 4:
            raise InputError(
                f"The pixel format {pixel_format!r} does not have four letters.", remedy="MJPG or YUYV, for instance"
            )
        self.device, self.pixel_format = device, pixel_format
        if not wait:
            self._check()

    def open(self) -> Capture:
        self._check()
        cv2 = import_cv2()
        if sys.platform.startswith("linux"):
            capture = cv2.VideoCapture(self.device, cv2.CAP_V4L2)
        else:
            capture = cv2.VideoCapture(int(self.device.removeprefix("/dev/video")))
        if not capture.isOpened():
            raise InputError(
                f"The camera {self.device} is there but does not answer.",
                remedy=f"close other programs that use it (fuser -v {self.device}) and check: v4l2-ctl --list-devices",
            )
        if self.pixel_format:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*self.pixel_format))
        wanted = ((cv2.CAP_PROP_FRAME_WIDTH, self.options.width), (cv2.CAP_PROP_FRAME_HEIGHT, self.options.height))
        for name, value in (*wanted, (cv2.CAP_PROP_FPS, self.options.rate), (cv2.CAP_PROP_BUFFERSIZE, 1)):
            if value is not None:
                capture.set(name, value)
        return capture

    def _check(self) -> None:
        device = Path(self.device)
        if not sys.platform.startswith("linux"):
            return
        if not device.exists():
            others = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "no /dev/video* at all"
            raise InputError(
                f"There is no camera {device}.",
                found=f"there is {others}",
                remedy="plug it in, name another one, or try without a camera: test://",
            )
        try:
            device.open("rb", buffering=0).close()
        except PermissionError as error:
            raise InputError(
                f"There is no permission to read the camera {device}.",
                remedy="sudo usermod -aG video $USER, then log in again",
            ) from error
        except OSError:
            return  # busy or half gone: opening it says more


class NetworkSource(LiveSource):
    """RTSP, HTTP (MJPEG) and other network streams, through OpenCV's FFmpeg."""

    resizes = True

    def __init__(self, uri: str, options: SourceOptions, *, wait: bool = False) -> None:
        super().__init__(uri, options, wait=wait)
        self._address = uri

    def open(self) -> Capture:
        cv2 = import_cv2()
        capture = cv2.VideoCapture(self._address, cv2.CAP_FFMPEG, _limits(cv2))
        if not capture.isOpened():
            raise InputError(
                f"There is no video from {self.uri} within {OPEN_TIMEOUT:g} s.",
                remedy="check address, user, password and network, for instance with: ffplay " + self.uri,
            )
        return capture


def is_finite(uri: str) -> bool:
    """Whether an address holds a video that ends: one that states its number of frames, as a file does.

    False too where nothing answers: a camera may come later.
    """
    cv2 = import_cv2()
    capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, _limits(cv2))
    try:
        return capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
    finally:
        capture.release()


class FileSource(Source):
    """A video file, every frame of it, as fast as they are taken or at `rate`. It may lie behind an http address."""

    def __init__(self, path: str, options: SourceOptions) -> None:
        super().__init__(path, options, live=False)
        self.path = path
        with _Opened(path) as capture:
            cv2 = import_cv2()
            self.count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            rate = float(capture.get(cv2.CAP_PROP_FPS))
            self.rate = rate if 0 < rate < 1000 else 30.0  # frames per second that the file states

    def frames(self) -> Iterator[Frame]:
        self.set_status(Status("live"))
        yield from self.paced(self._turns())

    def _turns(self) -> Iterator[Frame]:
        while not self.stopping:
            read = 0
            with _Opened(self.path) as capture:
                while not self.stopping:
                    good, frame = capture.read()
                    if not good:
                        break
                    if not usable(frame):
                        self.skipped += 1
                        continue
                    read += 1
                    yield adjusted(frame, self.options, resize=True)
            if read == 0 and not self.stopping:
                raise InputError(
                    f"The video {self.path} holds no frame that decodes.", remedy="convert or copy it again"
                )
            if not self.stopping and read < 0.9 * self.count:
                _log.warning(
                    "%s ends after %d of the %d frames it states: it is cut off or damaged", self.path, read, self.count
                )
            if not self.options.loop:
                return


class _Opened:
    """A video file opened for one `with` block."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> Any:
        cv2 = import_cv2()
        if "://" not in self.path:
            _check_file(self.path)
        self.capture = cv2.VideoCapture(self.path)
        if not self.capture.isOpened():
            raise InputError(
                f"OpenCV cannot decode the video {self.path}.",
                remedy="convert it: ffmpeg -i FILE -c:v libx264 -pix_fmt yuv420p out.mp4",
            )
        return self.capture

    def __exit__(self, *_: object) -> None:
        self.capture.release()


def _limits(cv2: Any) -> list[int]:
    """Parameters of VideoCapture: how long it may take to open and to read."""
    return [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        int(OPEN_TIMEOUT * 1e3),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        int(READ_TIMEOUT * 1e3),
    ]


def _check_file(path: str) -> None:
    """What OpenCV would not say, or would crash on.

    Raises:
        InputError: an empty file, or a name that is not UTF-8.
    """
    check_text(path)
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise InputError(f"The video {path} cannot be read.", found=error.strerror, remedy="check the path") from error
    if size == 0:
        raise InputError(f"The video {path} is empty.", remedy="copy the file again")


def usable(frame: Any) -> bool:
    """True for what a camera should deliver: uint8 [h, w, 3] with pixels."""
    return (
        isinstance(frame, np.ndarray)
        and frame.dtype == np.uint8
        and frame.ndim == 3
        and frame.shape[2] == 3
        and frame.size > 0
    )
