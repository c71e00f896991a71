"""The images and videos in a folder, and what else is there: nothing is left out in silence."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cast_sdk.images import is_image
from cast_sdk.runtime.sources.base import VIDEO_SUFFIXES
from cast_sdk.runtime.sources.kinds import Kind, file_kind

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
    """Images and videos of a folder, as `walk` gives them, in lists sorted by path."""
    found = Found()
    for kind, path in walk(folder, found, deep=deep, own=own):
        (found.images if kind == "image" else found.videos).append(path)
    found.images.sort()
    found.videos.sort()
    return found


def walk(folder: Path, found: Found, *, deep: bool = True, own: Collection[Path] = ()) -> Iterator[tuple[Kind, Path]]:
    """Images and videos of a folder one by one, by content, in the order of their names.

    Links to folders are followed, each folder once. Files whose name begins with a dot are left out, as are links that
    lead nowhere, pipes and devices.

    Args:
        folder: where to look.
        found: its `left_out` takes what is neither image nor video.
        deep: look into its folders too.
        own: resolved paths that are passed over without a word: results that were made before.
    """
    seen: set[tuple[int, int]] = set()
    skip = set(own)

    def visit(place: Path) -> Iterator[tuple[Kind, Path]]:
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
            path = Path(entry.path)
            if (kind := judge(path)) is not None:
                yield kind, path
            if deep and not entry.name.startswith(".") and _is_folder(entry):
                yield from visit(path)

    def judge(path: Path) -> Kind | None:
        if skip and path.resolve() in skip:
            return None
        try:
            mode = path.stat().st_mode
        except OSError:
            found.leave_out("links that lead nowhere", path)
            return None
        if path.name.startswith("."):
            found.leave_out("hidden files and folders", path)
        elif stat.S_ISDIR(mode):
            if not deep:
                found.leave_out("folders inside", path)
        elif not stat.S_ISREG(mode):
            found.leave_out("pipes, sockets and devices", path)
        else:
            return by_content(path)
        return None

    def by_content(path: Path) -> Kind | None:
        try:
            kind = file_kind(path)
        except OSError as error:
            found.leave_out(f"files that cannot be read: {error.strerror}", path)
            return None
        # A damaged file is still meant to be what its name says; whoever reads it tells what is wrong with it.
        if kind == "image" or (kind is None and is_image(path)):
            return "image"
        if kind == "video" or (kind is None and path.suffix.lower() in VIDEO_SUFFIXES):
            return "video"
        found.leave_out("empty files" if path.stat().st_size == 0 else "files that are neither image nor video", path)
        return None

    yield from visit(folder)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
