"""Which files are images: one answer for the runtime, the export and the training."""

from __future__ import annotations

import os
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm", ".avif"})


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a name ends as an image's does, in small or capital letters."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def images_in(folder: str | os.PathLike[str], *, deep: bool = False) -> list[Path]:
    """Files of a folder whose names are images', in the order of their paths.

    Args:
        folder: where to look.
        deep: also in the folders inside, those behind symbolic links too; each folder is read once, so a link that
            leads back up ends there.
    """
    found: list[Path] = []
    waiting, seen = [os.fspath(folder)], {os.path.realpath(folder)}
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if not _is_folder(entry):
                    found += [Path(entry.path)] if is_image(entry.name) else []
                elif deep and (real := os.path.realpath(entry.path)) not in seen:
                    seen.add(real)
                    waiting.append(entry.path)
    return sorted(found)
