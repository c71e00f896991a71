"""The images and videos in a folder, and what else is there: nothing is left out in silence."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from cast_sdk.images import is_image
from cast_sdk.runtime.sources.base import VIDEO_SUFFIXES
from cast_sdk.runtime.sources.kinds import file_kind

_NAMED = 3  # files that a summary names per reason


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        images, videos: files by content, sorted by path.
        left_out: files that are neither, by the reason they were left out for.
    """

    images: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    def leave_out(self, reason: str, path: Path) -> None:
        self.left_out.setdefault(reason, []).append(path)

    def summary(self) -> list[str]:
        """One line per reason, such as "left out 2 hidden files: .a, .b"; empty when nothing was left out."""
        lines = []
        for reason, paths in sorted(self.left_out.items()):
            names = [path.name for path in paths[:_NAMED]] + (["..."] if len(paths) > _NAMED else [])
            lines.append(f"left out {reason} ({len(paths)}): {', '.join(names)}")
        return lines


def search(folder: Path, *, deep: bool = True, own: Collection[Path] = ()) -> Found:
    """Images and videos of a folder, by content.

    Links to folders are followed, each folder once. Files whose name begins with a dot are left out, as are links that
    lead nowhere, pipes and devices; `Found.left_out` names them.

    Args:
        folder: where to look.
        deep: look into its folders too.
        own: resolved paths that are passed over without a word: results that were made before.
    """
    found = Found()
    seen: set[tuple[int, int]] = set()
    skip = set(own)

    def visit(place: Path) -> None:
        try:
            info = place.stat()
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            found.leave_out(f"folders that cannot be read: {error.strerror}", place)
            return
        if (info.st_dev, info.st_ino) in seen:
            return
        seen.add((info.st_dev, info.st_ino))
        for entry in entries:
            _sort(Path(entry.path))
            if deep and not entry.name.startswith(".") and _is_folder(entry):
                visit(Path(entry.path))

    def _sort(path: Path) -> None:
        if skip and path.resolve() in skip:
            return
        try:
            mode = path.stat().st_mode
        except OSError:
            found.leave_out("links that lead nowhere", path)
            return
        if path.name.startswith("."):
            found.leave_out("hidden files and folders", path)
        elif stat.S_ISDIR(mode):
            if not deep:
                found.leave_out("folders inside", path)
        elif not stat.S_ISREG(mode):
            found.leave_out("pipes, sockets and devices", path)
        else:
            _by_content(path)

    def _by_content(path: Path) -> None:
        try:
            kind = file_kind(path)
        except OSError as error:
            found.leave_out(f"files that cannot be read: {error.strerror}", path)
            return
        # A damaged file is still meant to be what its name says; whoever reads it tells what is wrong with it.
        if kind == "image" or (kind is None and is_image(path)):
            found.images.append(path)
        elif kind == "video" or (kind is None and path.suffix.lower() in VIDEO_SUFFIXES):
            found.videos.append(path)
        elif path.stat().st_size == 0:
            found.leave_out("empty files", path)
        else:
            found.leave_out("files that are neither image nor video", path)

    visit(folder)
    found.images.sort()
    found.videos.sort()
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
