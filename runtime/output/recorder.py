"""Recordings: an annotated video and, beside it, one JSON line per frame with the run-length hierarchy."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import numpy.typing as npt

from cast_sdk.arguments import as_path, real
from cast_sdk.descriptions import build
from cast_sdk.errors import ArtifactError, ExportError, InputError
from cast_sdk.runtime.output import rle
from cast_sdk.runtime.output.serialise import SCHEMA_VERSION, path_entries
from cast_sdk.runtime.preprocess import Geometry, check_text
from cast_sdk.system.files import atomic_write
from cast_sdk.system.opencv import import_cv2
from cast_sdk.system.signals import uninterrupted

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_AGAIN = "record it again"
_MAX_GAP = 10.0  # seconds that a live recording repeats a frame for, when its camera is away


class Recorder:
    """Writes `FILE` (video) and `FILE` with the suffix .jsonl; both get their names when the recorder closes.

    Leaving the `with` block by an error keeps what was recorded up to it, unless `partial` is False. A recording
    without any frame leaves no file.

    The first line of the JSON describes the recording (`schema_version`, `model`, `source`, `rate`, `level`); every
    other line is a frame, see `frame_record`.

    Args:
        path: .mp4, .m4v, .mov, .mkv or .avi.
        rate: frames per second of the video.
        live: keep the clock: a frame fills the video up to its own time, so that the film lasts as long as the scene.
            Otherwise every result is one frame of the video.
        level: level that is drawn; None: the frame with its class, for models without segments.
        source: name of the source, for the JSON.
        partial: keep a recording that an error or an interruption ends early.
        draw: further options of `Segmentation.plot`.

    Raises:
        InputError: another suffix, or a level the model does not have.
        ExportError: the folder is missing or cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rate: float = 30.0,
        live: bool = False,
        level: int | None = 2,
        source: str = "",
        partial: bool = True,
        **draw: Any,
    ) -> None:
        self.path = as_path(path)
        check_text(str(path))
        if self.path.suffix.lower() not in CODECS:
            raise InputError(
                f"The recording {path} does not end in {', '.join(CODECS)}.", remedy="for example --record out.mp4"
            )
        real(rate, "rate", 0, 1000, above=True)
        self.records = self.path.with_suffix(".jsonl")
        self.rate, self.live, self.level, self.source, self.draw = rate, live, level, source, draw
        self.partial = partial
        self.frames = 0  # results written
        self._shown = 0  # frames in the video
        self._stack = contextlib.ExitStack()
        self._writer: Any = None
        self._size = (0, 0)
        self._previous: npt.NDArray[np.uint8] | None = None
        self._started = 0.0
        self._video = self._stack.enter_context(atomic_write(self.path))
        # The container is chosen by the suffix, so the writer needs a name that has it.
        self._film = self._video.with_name(self._video.name + self.path.suffix)
        self._stack.callback(self._film.unlink, missing_ok=True)
        try:
            temporary = self._stack.enter_context(atomic_write(self.records))
            self._lines: TextIO = self._stack.enter_context(temporary.open("w", encoding="utf-8"))
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise

    def write(self, result: Segmentation) -> None:
        """Add one result. A signal takes effect when it is in both files."""
        with uninterrupted():
            self._write(result)

    def _write(self, result: Segmentation) -> None:
        picture = result.plot(self.level, **self.draw)
        now = time.monotonic()
        if self._writer is None:
            self._open(picture, result)
            self._started = now
        picture = letterboxed(picture, self._size)
        if self.live:
            due = round((now - self._started) * self.rate)
            if self._previous is not None and due - self._shown < _MAX_GAP * self.rate:
                for _ in range(due - self._shown):
                    self._show(self._previous)
            if due >= self._shown or self._previous is None:
                self._show(picture)
            self._previous = picture
        else:
            self._show(picture)
        record = {"video_frame": self._shown - 1, **frame_record(result)}
        if self.live:
            record["time"] = round(now - self._started, 4)
        self._line(record)
        self.frames += 1

    def close(self) -> None:
        """Finish both files and give them their names; safe to call twice."""
        self._end(keep=True)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(keep=error is None or self.partial)

    def _open(self, picture: npt.NDArray[np.uint8], result: Segmentation) -> None:
        cv2 = import_cv2()
        height, width = picture.shape[0] & ~1, picture.shape[1] & ~1  # codecs want even sides
        self._size = (max(2, height), max(2, width))
        codec = cv2.VideoWriter_fourcc(*CODECS[self.path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self._film), codec, self.rate, self._size[::-1])
        if not self._writer.isOpened():
            raise InputError(f"OpenCV cannot write the video {self.path}.", remedy="record to .avi")
        header = {"schema_version": SCHEMA_VERSION, "model": result.spec.name, "source": self.source}
        self._line({**header, "rate": self.rate, "level": self.level})

    def _show(self, picture: npt.NDArray[np.uint8]) -> None:
        self._writer.write(picture)
        self._shown += 1

    def _line(self, record: dict[str, Any]) -> None:
        self._lines.write(json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n")

    def _end(self, *, keep: bool) -> None:
        with uninterrupted():
            self._finish(keep=keep)

    def _finish(self, *, keep: bool) -> None:
        stack = self._stack.pop_all()  # empty the second time
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.release()
        if writer is None or not keep:
            with contextlib.suppress(_Unwanted):
                stack.__exit__(_Unwanted, _Unwanted(), None)
            return
        with stack:
            check_film(self._film, self.path, self._shown)
            self._film.replace(self._video)


def check_film(film: Path, name: Path, frames: int) -> None:
    """OpenCV's writer reports nothing, not even a full disk; so the film is opened once it is finished.

    Args:
        film: the file.
        name: what it is to be called, for the message.
        frames: how many were written.

    Raises:
        ExportError: it does not open, or lacks frames.
    """
    cv2 = import_cv2()
    capture = cv2.VideoCapture(str(film))
    try:
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        readable = capture.isOpened() and capture.read()[0]
    finally:
        capture.release()
    if readable and not 0 < count < 0.9 * frames:
        return
    free = shutil.disk_usage(film.parent).free
    raise ExportError(
        f"The recording {name} could not be written whole.",
        found=f"{max(count, 0) if readable else 0} of {frames} frames can be read; {free / 1e6:.0f} MB are free",
        remedy="free space, raise the limit of the file's size, or record to .avi",
    )


class _Unwanted(Exception):
    """Unwinds the temporary files of a recording that is not kept."""


def frame_record(result: Segmentation) -> dict[str, Any]:
    """One frame as plain data.

    Fields: `frame` (position in the source), `size` [height, width], `top` (classes), `unsure`, `path` (of a taxonomy,
    as in `to_dict`), `timing_ms`, `dropped`, `embedding` is left out. `levels` holds the superpixel map run by run in
    row order (`labels`, `lengths`, at `map` [height, width]), `parents` (one table per level, each superpixel's or
    segment's parent) and `geometry`, which places the map in the frame; with tracking also `tracks` (one list per
    level, the track of each segment). `level_maps` reads it back.
    """
    data: dict[str, Any] = {
        "frame": result.index,
        "size": list(result.size),
        "top": [{"class_id": c, "name": n, "probability": round(p, 6)} for c, n, p in result.top()],
        "unsure": result.unsure,
        "timing_ms": {stage: round(value, 3) for stage, value in result.timing.items()},
        "dropped": result.dropped,
    }
    if result.spec.taxonomy:
        data["path"] = path_entries(result.path())
    if result.hierarchy is not None:
        labels, lengths = rle.runs(result.hierarchy.superpixels)
        geometry = result.geometry
        data["levels"] = {
            "map": list(result.hierarchy.superpixels.shape),
            "labels": labels.tolist(),
            "lengths": lengths.tolist(),
            "parents": [result.parents(level).tolist() for level in range(result.num_levels)],
            "geometry": {"resized": list(geometry.resized), "top": geometry.top, "left": geometry.left},
        }
        if result.tracking is not None:
            data["levels"]["tracks"] = [ids.tolist() for ids in result.tracking.ids]
    return data


def level_maps(record: dict[str, Any]) -> list[npt.NDArray[np.int32]]:
    """The label maps of one recorded frame, level 0 first: int32 [height, width] at the frame's size.

    Raises:
        InputError: for a record of another form, or when the runs do not fill the map.
    """
    levels = _maps_of(record)
    height, width = levels.map
    if not len(levels.labels) == len(levels.lengths) or sum(levels.lengths) != height * width:
        raise InputError(
            "The runs of the record do not fill its map.",
            found=f"{sum(levels.lengths)} pixels for {height} x {width}",
            remedy=_AGAIN,
        )
    flat = np.repeat(np.asarray(levels.labels, np.int32), np.asarray(levels.lengths, np.int64))
    place = levels.geometry
    geometry = Geometry(levels.size, place.resized, (height, width), place.top, place.left)
    maps = [flat.reshape(height, width)]
    for parents in levels.parents:
        if int(maps[-1].max()) >= len(parents):
            raise InputError("The record has labels without a parent.", found=f"{len(parents)} parents", remedy=_AGAIN)
        maps.append(np.asarray(parents, np.int32)[maps[-1]])
    return [geometry.to_frame(labels) for labels in maps]


@dataclass(frozen=True)
class _Place:
    resized: tuple[int, int]
    top: int
    left: int


@dataclass(frozen=True)
class _Maps:
    """The part of a recorded frame that its label maps are made from."""

    size: tuple[int, int]
    map: tuple[int, int]
    labels: tuple[int, ...]
    lengths: tuple[int, ...]
    parents: tuple[tuple[int, ...], ...]
    geometry: _Place


_SIDE = (1, 2**16)
_RANGES = {
    "size": _SIDE,
    "map": _SIDE,
    "resized": _SIDE,
    "top": (0, _SIDE[1]),
    "left": (0, _SIDE[1]),
    "labels": (0, 2**24),
    "lengths": (1, 2**32),
    "parents": (0, 2**24),
}


def _maps_of(record: Mapping[str, Any]) -> _Maps:
    found = record.get("levels") if isinstance(record, Mapping) else None
    if not isinstance(found, Mapping):
        raise InputError(
            "The record of the frame has no levels.", remedy="record it with a model that gives segments, such as CAST"
        )
    fields = {field.name: found[field.name] for field in fields_of(_Maps) if field.name in found}
    try:
        return build(_Maps, {"size": record.get("size"), **fields}, "the record of the frame", _RANGES, remedy=_AGAIN)
    except ArtifactError as error:
        raise InputError(error.problem, remedy=error.remedy) from error


def read_records(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Header and frames of a .jsonl recording; frames are read as they are asked for."""
    lines = _lines(as_path(path))
    header = next(lines, None)
    if not isinstance(header, dict) or "schema_version" not in header:
        raise InputError(
            f"{os.fspath(path)} does not begin with the description of a recording.",
            remedy="give the .jsonl file that lies beside a recorded video",
        )
    return header, lines


def letterboxed(picture: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The picture inside (height, width), its proportions kept, black around it. Off by one pixel is cut."""
    height, width = size
    if 0 <= picture.shape[0] - height <= 1 and 0 <= picture.shape[1] - width <= 1:
        return np.ascontiguousarray(picture[:height, :width])
    cv2 = import_cv2()
    factor = min(height / picture.shape[0], width / picture.shape[1])
    inner = (max(1, round(picture.shape[0] * factor)), max(1, round(picture.shape[1] * factor)))
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    resized = cv2.resize(picture, inner[::-1], interpolation=cv2.INTER_AREA)
    out[top : top + inner[0], left : left + inner[1]] = resized
    return out


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(
                        f"Line {number} of {path} is not JSON.", found=str(error), remedy="copy the file again"
                    ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read.",
            found=getattr(error, "strerror", None) or str(error),
            remedy="check the path, and that it is the .jsonl file of a recording",
        ) from error
