"""One URI for every source of frames: cameras, network streams, files, folders and a synthetic scene.

0, /dev/video0, v4l2:///dev/video0   USB camera (add ?format=MJPG to ask for a pixel format)
csi://0                              camera of a Jetson, through GStreamer
gst://ELEMENT ! ELEMENT              any GStreamer pipeline
rtsp://USER:PASSWORD@HOST/PATH       network camera; also rtmp://, udp://
http://HOST/PATH, https://...        MJPEG and other HTTP streams; a video file behind such an address is read as a file
clip.mp4, file:///path/clip.mp4      video file
photo.jpg, folder/, 'shots/*.jpg'    images, in the order of their names
test://?width=640&rate=30            moving synthetic scene
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import numpy as np

from cast_sdk.errors import InputError
from cast_sdk.images import is_image
from cast_sdk.runtime.inputs.reading import Frame
from cast_sdk.runtime.sources.base import Source, SourceOptions
from cast_sdk.runtime.sources.files import ImageSource, IterableSource
from cast_sdk.runtime.sources.folders import search
from cast_sdk.runtime.sources.kinds import file_kind
from cast_sdk.system.files import kind_at

_log = logging.getLogger(__name__)
_NETWORK = ("rtsp", "rtsps", "rtmp", "udp", "tcp", "http", "https")


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
    if isinstance(source, int) and not isinstance(source, bool) and source >= 0:
        return _camera(f"/dev/video{source}", {}, options, wait)
    if not isinstance(source, (str, os.PathLike)):
        if not isinstance(source, Iterable) or isinstance(source, np.ndarray):
            raise InputError(
                f"The source is of the type {type(source).__name__}.",
                remedy="give a URI, a path, a camera number or an iterable of frames; a single frame: segment(frame)",
            )
        return IterableSource(source, options)
    uri = os.fspath(source)
    _named(uri)
    if uri.isdecimal():
        device = f"/dev/video{int(uri)}"
        if kind_at(uri) != "nothing" and kind_at(device) == "nothing":  # a folder named 2024
            return _path(uri, uri, options)
        return _camera(device, {}, options, wait)
    scheme, found, rest = uri.partition("://")
    if not found:
        return _camera(uri, {}, options, wait) if uri.startswith("/dev/video") else _path(uri, uri, options)
    scheme = scheme.lower()
    if scheme == "file":
        host, slash, path = rest.partition("/")
        if not slash or host not in ("", "localhost"):
            raise InputError(
                f"{uri} names no file of this machine.", remedy="write three slashes: file:///path/clip.mp4"
            )
        return _path(uri, _named(unquote(slash + path)), options)
    if scheme == "v4l2":
        path, _, query = rest.partition("?")
        return _camera(f"/dev/video{path}" if path.isdecimal() else path, _query(uri, query, {"format"}), options, wait)
    if scheme in ("csi", "gst"):
        from cast_sdk.runtime.sources.gstreamer import GStreamerSource

        return GStreamerSource(uri, options, wait=wait)
    if scheme == "test":
        return _scene(uri, rest.partition("?")[2], options)
    if scheme in _NETWORK:
        from cast_sdk.runtime.sources.opencv import FileSource, NetworkSource, is_finite

        if scheme in ("http", "https") and is_finite(uri):
            return FileSource(uri, options)
        return NetworkSource(uri, options, wait=wait)
    raise InputError(
        f"There is no kind of source {scheme}://.",
        remedy="use v4l2, csi, gst, rtsp, rtmp, udp, http, https, file or test; see cast-camera --help",
    )


def _named(text: str) -> str:
    """The name itself, if it can be one."""
    if "\0" in text or not text:
        raise InputError(f"{text!r} is no name of a source.", remedy="give a URI, a path or a camera number")
    return text


def _path(uri: str, path: str, options: SourceOptions) -> Source:
    kind = kind_at(path)
    if kind == "folder":
        found = search(Path(path), deep=False)
        for line in found.summary():
            _log.warning("%s: %s", path, line)
        if not found.images:
            raise InputError(
                f"The folder {path} holds no image files.",
                found="; ".join(found.summary()) or "it is empty",
                remedy="name a video or another folder",
            )
        return ImageSource(uri, options, [str(file) for file in found.images])
    if kind != "nothing":
        if _is_image(path):
            return ImageSource(uri, options, [path])
        from cast_sdk.runtime.sources.opencv import FileSource

        return FileSource(path, options)
    if glob.has_magic(path):
        paths = sorted(file for file in glob.iglob(path, recursive=True) if Path(file).is_file() and _is_image(file))  # noqa: PTH207
        if not paths:
            raise InputError(f"No image files match {path}.", remedy="check it with: ls " + path)
        return ImageSource(uri, options, paths)
    raise InputError(
        f"There is no file, folder or camera {path}.",
        remedy="check the path; cameras are 0, v4l2:///dev/video0, csi://0 or rtsp://...",
    )


def _is_image(path: str) -> bool:
    """Kind of a file by its content, by its name where the content tells nothing.

    Raises:
        InputError: for a pipe, socket or device, or a file that cannot be read.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} is a pipe, socket or device.", remedy="cameras are v4l2:///dev/video0 or csi://0")
    try:
        kind = file_kind(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read.", found=error.strerror, remedy="check its permissions") from error
    return kind == "image" or (kind is None and is_image(path))


def _camera(device: str, query: dict[str, str], options: SourceOptions, wait: bool) -> Source:
    from cast_sdk.runtime.sources.opencv import CameraSource

    return CameraSource(device, options, pixel_format=query.get("format"), wait=wait)


def _scene(uri: str, query: str, options: SourceOptions) -> Source:
    from cast_sdk.runtime.sources.scene import SceneSource

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
        raise InputError(f"A parameter of {uri} is not a number.", found=str(error)) from error


def _query(uri: str, query: str, known: set[str]) -> dict[str, str]:
    values: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            f"{uri} has unknown parameters: {', '.join(unknown)}.", remedy=f"it takes {', '.join(sorted(known))}"
        )
    return values
