"""Segment a video file: an annotated video and its JSON lines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cast_sdk.runtime.output.recorder import Recorder
from cast_sdk.runtime.sources.base import VIDEO_SUFFIXES, SourceOptions
from cast_sdk.runtime.sources.opencv import FileSource
from cast_sdk.runtime.streaming import stream

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation
    from cast_sdk.runtime.runtime import Runtime


def is_video(path: str | os.PathLike[str]) -> bool:
    """True for a file whose suffix is one of a video."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def video_outputs(
    path: str | os.PathLike[str], out_dir: str | os.PathLike[str], suffix: str = ".mp4"
) -> tuple[Path, Path]:
    """Paths of the annotated video and of the JSON lines; never the video itself."""
    film = Path(out_dir) / f"{Path(path).stem}{suffix}"
    if film.resolve() == Path(path).resolve():
        film = film.with_name(f"{film.stem}_segments{suffix}")
    return film, film.with_suffix(".jsonl")


def segment_video(
    rt: Runtime,
    path: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    level: int = 2,
    suffix: str = ".mp4",
    progress: Callable[[Segmentation, int], None] | None = None,
    **draw: Any,
) -> tuple[Path, Path]:
    """Every frame of a video, segmented.

    Args:
        rt: the runtime.
        path: the video.
        out_dir: folder for `NAME.mp4` and `NAME.jsonl` (see `record.Recorder`); both appear when they are complete.
        level: level that is drawn.
        suffix: of the annotated video.
        progress: called with each result and the number of frames the file states (0: unknown).
        draw: options of `Segmentation.plot`.

    Returns:
        Paths of the video and of the JSON lines.

    Raises:
        InputError: no video, or one that holds no frame.
        StreamError: the video fails midway.
    """
    source = FileSource(os.fspath(path), SourceOptions())
    film, _ = video_outputs(path, out_dir, suffix)
    with (
        Recorder(
            film,
            rate=source.rate,
            level=level if rt.spec.clusters else None,
            source=os.fspath(path),
            partial=False,
            **draw,
        ) as recorder,
        stream(rt, source) as results,
    ):
        for result in results:
            recorder.write(result)
            if progress is not None:
                progress(result, source.count)
    return recorder.path, recorder.records
