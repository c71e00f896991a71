"""Cameras through GStreamer: the CSI cameras of a Jetson and any other pipeline."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np

from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.runtime.sources.base import SourceOptions
from cast_sdk.runtime.sources.opencv import OPEN_TIMEOUT, READ_TIMEOUT, Capture, LiveSource
from cast_sdk.system.opencv import import_cv2

_SINK = "appsink name=cast_sink max-buffers=1 drop=true sync=false"


class GStreamerSource(LiveSource):
    """`csi://N` or `gst://ELEMENT ! ELEMENT`, through OpenCV where it has GStreamer, else through PyGObject.

    Raises:
        MissingDependencyError: neither is there, or the pipeline needs an element that is not installed.
    """

    def __init__(self, uri: str, options: SourceOptions, *, wait: bool = False) -> None:
        super().__init__(uri, options, wait=wait)
        scheme, _, rest = uri.partition("://")
        if scheme.lower() == "csi":
            if not rest.isdecimal():
                raise InputError(f"{uri} does not name a CSI camera by its number.", remedy="for example csi://0")
            self.pipeline = csi_pipeline(int(rest), options.width or 1280, options.height or 720, options.rate or 30)
        else:
            self.pipeline = f"{rest} ! videoconvert ! video/x-raw,format=BGR"
            self.resizes = True
        self._through_opencv = opencv_has_gstreamer()
        if not self._through_opencv:
            check_elements(self.pipeline)

    def open(self) -> Capture:
        if not self._through_opencv:
            return AppSink(self.pipeline)
        cv2 = import_cv2()
        capture = cv2.VideoCapture(f"{self.pipeline} ! {_SINK}", cv2.CAP_GSTREAMER)
        if not capture.isOpened():
            raise InputError(f"OpenCV cannot start the pipeline {self.pipeline}.", remedy=_remedy(self.pipeline))
        return capture


def csi_pipeline(sensor: int, width: int, height: int, rate: float) -> str:
    """Pipeline of a Jetson's CSI camera up to BGR frames in main memory, newest frame only."""
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={round(rate * 1000)}/1000 ! "
        "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR"
    )


@cache
def opencv_has_gstreamer() -> bool:
    """Whether the OpenCV of this installation was built with GStreamer (wheels from the package index are not)."""
    lines = import_cv2().getBuildInformation().splitlines()
    return any(line.strip().startswith("GStreamer:") and "YES" in line for line in lines)


def check_elements(pipeline: str) -> None:
    """Every element of the pipeline must be installed.

    Raises:
        MissingDependencyError: it names the first that is not, and the package that brings it.
    """
    gst = _gst()
    for part in f"{pipeline} ! {_SINK}".split("!"):
        name = part.split()[0] if part.split() else ""
        if not name or "/" in name:  # a caps filter
            continue
        if gst.ElementFactory.find(name) is None:
            raise MissingDependencyError(
                f"The GStreamer element {name} of this pipeline is not installed.",
                remedy="on a Jetson: sudo apt install nvidia-l4t-gstreamer; elsewhere use v4l2:// or test://"
                if name.startswith("nv")
                else f"install the package that holds it (gst-inspect-1.0 {name}), often gstreamer1.0-plugins-good",
            )


class AppSink:
    """A running pipeline whose frames are pulled through PyGObject."""

    def __init__(self, pipeline: str) -> None:
        self._gst = gst = _gst()
        try:
            self._pipeline = gst.parse_launch(f"{pipeline} ! {_SINK}")
        except Exception as error:
            raise InputError(
                "GStreamer cannot read the pipeline.", found=str(error), remedy="try it with gst-launch-1.0"
            ) from error
        self._sink = self._pipeline.get_by_name("cast_sink")
        self._pipeline.set_state(gst.State.PLAYING)
        change, _, _ = self._pipeline.get_state(int(OPEN_TIMEOUT * gst.SECOND))
        if change in (gst.StateChangeReturn.FAILURE, gst.StateChangeReturn.ASYNC):
            reason = self._reason()
            self.release()
            raise InputError("The pipeline did not start.", found=reason, remedy=_remedy(pipeline))

    def read(self) -> tuple[bool, Any]:
        """One frame: uint8 [h, w, 3] BGR."""
        gst = self._gst
        sample = self._sink.emit("try-pull-sample", int(READ_TIMEOUT * gst.SECOND))
        if sample is None:
            return False, None
        layout = sample.get_caps().get_structure(0)
        width, height = layout.get_value("width"), layout.get_value("height")
        buffer = sample.get_buffer()
        good, mapped = buffer.map(gst.MapFlags.READ)
        if not good:
            return False, None
        try:
            stride = (3 * width + 3) // 4 * 4  # GStreamer rounds the rows of packed BGR up to four bytes
            data = np.frombuffer(mapped.data, np.uint8)
            if data.size < stride * height:
                return False, None
            return True, data[: stride * height].reshape(height, stride)[:, : 3 * width].reshape(
                height, width, 3
            ).copy()
        finally:
            buffer.unmap(mapped)

    def release(self) -> None:
        self._pipeline.set_state(self._gst.State.NULL)

    def _reason(self) -> str:
        message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
        if message is None:
            return f"no frame within {OPEN_TIMEOUT:g} s"
        error, _ = message.parse_error()
        return str(error.message)


@cache
def _gst() -> Any:
    try:
        import gi

        gi.require_version("Gst", "1.0")
        gi.require_version("GstApp", "1.0")
        from gi.repository import Gst, GstApp  # noqa: F401  (GstApp: signals of appsink)
    except (ImportError, ValueError) as error:
        raise MissingDependencyError(
            "GStreamer, which cameras at csi:// and gst:// need, is not there.",
            found=f"OpenCV {import_cv2().__version__} without GStreamer, and PyGObject does not load ({error})",
            remedy="sudo apt install python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0 "
            "gstreamer1.0-plugins-good, and make the environment with: python3 -m venv --system-site-packages "
            + os.environ.get("VIRTUAL_ENV", "ENV"),
        ) from error
    Gst.init(None)
    return Gst


def _remedy(pipeline: str) -> str:
    if "nvarguscamerasrc" in pipeline:
        return "check the ribbon cable and sensor number, and restart the daemon: sudo systemctl restart nvargus-daemon"
    return "try it alone: gst-launch-1.0 " + pipeline + " ! fakesink"
