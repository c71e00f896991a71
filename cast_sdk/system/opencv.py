"""The one place that imports OpenCV, and what to say where that fails.

Any build of OpenCV serves: opencv-python (what pip brings), its headless and contrib wheels, or JetPack's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cast_sdk.errors import MissingDependencyError

# They install the same files.
WHEELS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
# Debian's packages of the libraries that opencv-python's windows need.
_LIBRARIES = {
    "libGL.so": "libgl1",
    "libgthread-2.0.so": "libglib2.0-0",
    "libglib-2.0.so": "libglib2.0-0",
    "libxcb.so": "libxcb1",
    "libSM.so": "libsm6",
    "libICE.so": "libice6",
    "libXext.so": "libxext6",
    "libX11.so": "libx11-6",
}


def import_cv2() -> Any:
    """The cv2 module.

    Raises:
        MissingDependencyError: not installed, damaged by another wheel, or without a system library that it needs.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "OpenCV is not there: images cannot be read or resized.", found=str(error), remedy=remedy_for(str(error))
        ) from error
    if not hasattr(cv2, "imdecode"):
        raise MissingDependencyError(
            "OpenCV is damaged: its folder is there, its functions are not.",
            found=f"cv2 in {', '.join(map(str, cv2.__path__))}; wheels: {', '.join(wheels()) or 'none'}",
            remedy=repair(wheels()),
        )
    return cv2


def wheels() -> dict[str, str]:
    """OpenCV's wheels of this environment with their versions."""
    from importlib import metadata  # slow, and only errors need it

    found = {}
    for name in WHEELS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def repair(installed: dict[str, str]) -> str:
    """The command that mends files that wheels overwrote: it keeps the wheel that somebody chose, not the default one.

    Args:
        installed: As `wheels` gives it.
    """
    if not installed:
        return "pip install opencv-python"
    keep = max(installed, key=lambda name: ("contrib" in name, "headless" in name))
    others = [name for name in installed if name != keep]
    again = f"pip install --force-reinstall --no-deps {keep}=={installed[keep]}"
    return f"pip uninstall -y {' '.join(others)} && {again}" if others else again


def remedy_for(message: str, system: Iterable[Path] | None = None) -> str:
    """What to do about a failed import of cv2.

    Args:
        message: Of the ImportError.
        system: Folders of the system's Python packages; default: Debian's.
    """
    for library, package in _LIBRARIES.items():
        if re.search(rf"\b{re.escape(library)}", message):
            return f"sudo apt install {package}"
    if ".so" in message:
        return f"install the system library that it names; OpenCV itself is here ({', '.join(wheels()) or 'no wheel'})"
    folders = Path("/usr/lib").glob("python3*/dist-packages") if system is None else system
    outside = next((folder for folder in sorted(folders) if any(folder.glob("cv2*"))), None)
    if outside is not None:
        return (
            f"to use the system's OpenCV in {outside}, make the environment with python3 -m venv "
            "--system-site-packages; for one of its own: pip install opencv-python"
        )
    return "pip install opencv-python"
