"""A real RTSP camera for the tests: GStreamer's server playing CamVid frames, which can be killed and started again."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

from browser import missing

_NEEDS = (
    "needs GStreamer's RTSP server (apt-get install -y python3-gi gir1.2-gst-rtsp-server-1.0 "
    "gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly)"
)


class RtspCamera:
    """Plays the first frames of CamVid's training sequence at `uri`."""

    def __init__(self, data: Path, folder: Path) -> None:
        python = shutil.which("python3", path="/usr/bin")
        probe = (
            "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst; Gst.init(None); "
            "assert all(map(Gst.ElementFactory.find, ('x264enc', 'jpegdec', 'rtph264pay')))"
        )
        if python is None or subprocess.run([python, "-c", probe], capture_output=True).returncode:
            missing(_NEEDS)
        frames = sorted((data / "camvid" / "train").glob("*.jpg"))[:60]
        for number, frame in enumerate(frames):
            shutil.copyfile(frame, folder / f"{number:05d}.jpg")
        with socket.socket() as probe_socket:
            probe_socket.bind(("127.0.0.1", 0))
            self.port = probe_socket.getsockname()[1]
        self.uri = f"rtsp://127.0.0.1:{self.port}/camera"
        self._command = [python, str(Path(__file__).with_name("rtsp_server.py")), str(folder), str(self.port)]
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout.readline().strip() == "ready"

    def kill(self) -> None:
        """As if the plug was pulled: no goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None
