"""Segment a video file: an annotated video and its JSON lines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cast_sdk.runtime.output.recorder import Recorder
from cast_sdk.runtime.sources.base import SourceOptions
from cast_sdk.runtime.sources.opencv import FileSource
from cast_sdk.runtime.streaming import stream

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation
    from cast_sdk.runtime.runtime import Runtime


def segment_video(
    rt: Runtime,
    path: str | os.PathLike[str],
    film: Path,
    *,
    level: int = 2,
    track: bool = True,
    progress: Callable[[Segmentation, int], None] | None = None,
    **draw: Any,
) -> None:
    """Every frame of a video, segmented.

    Args:
        rt: the runtime.
        path: the video.
        film: the annotated video; its JSON lines stand beside it (see `Recorder`). Both appear when they are complete.
        level: level that is drawn.
        track: follow segments from frame to frame, see `cast_sdk.runtime.streaming.stream`.
        progress: called with each result and the number of frames the file states (0: unknown).
        draw: options of `Segmentation.plot`.

    Raises:
        InputError: no video, or one that holds no frame.
        StreamError: the video fails midway.
        ExportError: the film cannot be written.
    """
    source = FileSource(os.fspath(path), SourceOptions())
    with (
        Recorder(
            film,
            rate=source.rate,
            level=level if rt.spec.clusters else None,
            source=os.fspath(path),
            partial=False,
            **draw,
        ) as recorder,
        stream(rt, source, track=track) as results,
    ):
        for result in results:
            recorder.write(result)
            if progress is not None:
                progress(result, source.count)
