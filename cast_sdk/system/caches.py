"""Where files are kept that can be made again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cast_sdk.errors import ArtifactError


def cache_folder() -> Path:
    """`$CAST_SDK_CACHE`, else the system's folder for caches: ~/.cache/cast_sdk on Linux."""
    if chosen := os.environ.get("CAST_SDK_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "cast_sdk" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "cast_sdk"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cast_sdk"


def cache_room(name: str) -> Path:
    """A folder of the cache, made where it is not there yet.

    Raises:
        ArtifactError: when it cannot be made.
    """
    folder = cache_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"The cache folder {folder} cannot be made.",
            found=error.strerror,
            remedy="set CAST_SDK_CACHE to a folder that can",
        ) from error
    return folder
