"""One URI for every source of frames: cameras, network streams, files, folders and a synthetic scene.

0, /dev/video0, v4l2:///dev/video0   USB camera (add ?format=MJPG to ask for a pixel format)
csi://0                              camera of a Jetson, through GStreamer
gst://ELEMENT ! ELEMENT              any GStreamer pipeline
rtsp://USER:PASSWORD@HOST/PATH       network camera; also rtmp://, udp://
http://HOST/PATH, https://...        MJPEG and other HTTP streams
clip.mp4, file:///path/clip.mp4      video file
photo.jpg, folder/, 'shots/*.jpg'    images, in the order of their names
test://?width=640&rate=30            moving synthetic scene
"""

from __future__ import annotations

import glob
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.runtime.preprocess import Frame, import_cv2

FLIPS = ("none", "horizontal", "vertical", "rotate-90", "rotate-180", "rotate-270")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"})
_NETWORK = ("rtsp", "rtsps", "rtmp", "udp", "tcp", "http", "https")

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
        if self.flip not in FLIPS:
            raise InputError(f"A flip is one of {', '.join(FLIPS)}.", found=repr(self.flip))
        for name, value, most in (
            ("width", self.width, 16384),
            ("height", self.height, 16384),
            ("rate", self.rate, 1000),
        ):
            if value is not None and not 0 < value <= most:
                raise InputError(f"The {name} of a source lies between 1 and {most}.", found=str(value))


class Source:
    """Frames by iteration, with a state that can be watched.

    Attributes:
        uri: for people; passwords are hidden.
        live: a camera or a stream: frames that nobody takes are lost, and a lost connection is opened again.
        status: what it does now.
        skipped: frames that arrived damaged and were left out.
    """

    def __init__(self, uri: str, options: SourceOptions, *, live: bool) -> None:
        self.uri, self.options, self.live = hide_password(uri), options, live
        self.on_status: Callable[[Status], None] | None = None
        self.status = Status("opening")
        self.skipped = 0
        self._stopping = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        try:
            yield from self.frames()
        finally:
            if self.status.state != "ended":
                self.tell(Status("ended"))

    def frames(self) -> Iterator[Frame]:
        """The frames themselves; one implementation per kind of source."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the iteration soon. Safe from any thread."""
        self._stopping.set()

    def tell(self, status: Status) -> None:
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


class ImageSource(Source):
    """Image files in order. They are decoded where they are prepared, in the pipeline's workers."""

    def __init__(self, uri: str, options: SourceOptions, paths: list[str]) -> None:
        super().__init__(uri, options, live=False)
        self.paths = paths

    def frames(self) -> Iterator[Frame]:
        self.tell(Status("live"))
        changes = self.options.width or self.options.height or self.options.flip != "none"
        yield from self.paced(self._decoded(path) if changes else path for path in self._turns())

    def _turns(self) -> Iterator[str]:
        while True:
            yield from self.paths
            if not self.options.loop:
                return

    def _decoded(self, path: str) -> Frame:
        from cast_sdk.runtime.preprocess import read_image

        return adjusted(read_image(path), self.options, resize=True)


class IterableSource(Source):
    """Whatever the caller iterates over."""

    def __init__(self, frames: Iterable[Frame], options: SourceOptions) -> None:
        if options.loop or options.width or options.height or options.flip != "none":
            raise InputError(
                "Size, flip and loop belong to sources that are named by a URI.",
                found="an iterable of frames",
                remedy="change the frames where they are made (cv2.resize, cv2.flip, itertools.cycle)",
            )
        super().__init__(type(frames).__name__, options, live=False)
        self._frames = frames

    def frames(self) -> Iterator[Frame]:
        self.tell(Status("live"))
        yield from self.paced(self._frames)


def open_source(
    source: str | int | os.PathLike[str] | Iterable[Frame] | Source,
    *,
    width: int | None = None,
    height: int | None = None,
    rate: float | None = None,
    flip: str = "none",
    loop: bool = False,
    wait: bool = False,
) -> Source:
    """Source of frames for a URI, a path, a camera number or any iterable of frames.

    Args:
        source: see the top of this module.
        width, height, rate, flip, loop: see `SourceOptions`.
        wait: also keep trying when a live source does not answer at the start (default: an error).

    Raises:
        InputError: a path, device or URI that does not exist or cannot be read.
        MissingDependencyError: GStreamer or OpenCV is missing; it names the piece.
    """
    if isinstance(source, Source):
        return source
    options = SourceOptions(width, height, rate, flip, loop)
    if isinstance(source, int) and not isinstance(source, bool):
        return _camera(f"/dev/video{source}", {}, options, wait)
    if not isinstance(source, (str, os.PathLike)):
        if not isinstance(source, Iterable) or isinstance(source, np.ndarray):
            raise InputError(
                "A source is a URI, a path, a camera number or an iterable of frames.",
                found=type(source).__name__,
                remedy="for a single frame use segment(frame)",
            )
        return IterableSource(source, options)
    uri = os.fspath(source)
    if uri.isdecimal():
        return _camera(f"/dev/video{uri}", {}, options, wait)
    scheme, found, rest = uri.partition("://")
    if not found:
        return _camera(uri, {}, options, wait) if uri.startswith("/dev/video") else _path(uri, uri, options)
    scheme = scheme.lower()
    if scheme == "file":
        return _path(uri, unquote(urlsplit(uri).path), options)
    if scheme == "v4l2":
        path, _, query = rest.partition("?")
        return _camera(f"/dev/video{path}" if path.isdecimal() else path, _query(uri, query, {"format"}), options, wait)
    if scheme in ("csi", "gst"):
        from cast_sdk.runtime.gstreamer import GStreamerSource

        return GStreamerSource(uri, options, wait=wait)
    if scheme == "test":
        return _scene(uri, rest.partition("?")[2], options)
    if scheme in _NETWORK:
        from cast_sdk.runtime.capture import NetworkSource

        return NetworkSource(uri, options, wait=wait)
    raise InputError(
        "A source URI starts with v4l2, csi, gst, rtsp, rtmp, udp, http, https, file or test.",
        found=f"{scheme}://",
        remedy="see cast-camera --help",
    )


def adjusted(frame: npt.NDArray[np.uint8], options: SourceOptions, *, resize: bool) -> npt.NDArray[np.uint8]:
    """A frame after flip and, if asked, resizing: uint8 [h, w, 3]."""
    cv2 = import_cv2()
    if resize and (options.width or options.height):
        height, width = frame.shape[:2]
        target = (
            options.width or max(1, round(width * (options.height or 0) / height)),
            options.height or max(1, round(height * (options.width or 0) / width)),
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


def hide_password(uri: str) -> str:
    """The URI without the password in it, for messages and pages."""
    if "@" not in uri or "://" not in uri:
        return uri
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))


def _path(uri: str, path: str, options: SourceOptions) -> Source:
    if Path(path).is_dir():
        paths = sorted(str(p) for p in Path(path).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise InputError(
                "A folder of frames holds image files.",
                found=f"none in {path}",
                remedy="name a video or another folder",
            )
        return ImageSource(uri, options, paths)
    if Path(path).exists():
        if Path(path).suffix.lower() in IMAGE_SUFFIXES:
            return ImageSource(uri, options, [path])
        from cast_sdk.runtime.capture import FileSource

        return FileSource(path, options)
    if glob.has_magic(path):
        paths = sorted(p for p in glob.iglob(path, recursive=True) if Path(p).suffix.lower() in IMAGE_SUFFIXES)  # noqa: PTH207
        if not paths:
            raise InputError(
                "A pattern must match image files.", found=f"none match {path}", remedy="check it with: ls " + path
            )
        return ImageSource(uri, options, paths)
    raise InputError(
        "A source must exist.",
        found=f"no file, folder or camera {path}",
        remedy="check the path; cameras are 0, v4l2:///dev/video0, csi://0 or rtsp://...",
    )


def _camera(device: str, query: dict[str, str], options: SourceOptions, wait: bool) -> Source:
    from cast_sdk.runtime.capture import CameraSource

    return CameraSource(device, options, pixel_format=query.get("format"), wait=wait)


def _scene(uri: str, query: str, options: SourceOptions) -> Source:
    from cast_sdk.runtime.scene import SceneSource

    values = _query(uri, query, {"width", "height", "rate", "count", "light", "seed"})
    try:
        return SceneSource(
            uri,
            SourceOptions(None, None, None, options.flip),
            width=int(values.get("width", options.width or 640)),
            height=int(values.get("height", options.height or 480)),
            rate=float(values.get("rate", options.rate or 30)),
            count=int(values.get("count", 0)),
            light=float(values.get("light", 1.0)),
            seed=int(values.get("seed", 0)),
        )
    except ValueError as error:
        raise InputError("The parameters of test:// are numbers.", found=f"{uri}: {error}") from error


def _query(uri: str, query: str, known: set[str]) -> dict[str, str]:
    values: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            f"The parameters of this URI are {', '.join(sorted(known))}.", found=f"{', '.join(unknown)} in {uri}"
        )
    return values
