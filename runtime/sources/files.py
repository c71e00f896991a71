"""Sources that need no device: image files, and whatever the caller iterates over."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator

import numpy as np

from cast_sdk.decoding.reader import read_image
from cast_sdk.errors import CastError, InputError
from cast_sdk.runtime.inputs.reading import Frame
from cast_sdk.runtime.sources.base import Source, SourceOptions, Status, adjusted

_log = logging.getLogger(__name__)


class ImageSource(Source):
    """Image files in order. They are decoded where they are prepared, in the pipeline's workers.

    One of several files that cannot be read is logged, counted in `skipped` and left out.
    """

    def __init__(self, uri: str, options: SourceOptions, paths: list[str]) -> None:
        super().__init__(uri, options, live=False)
        self.paths = paths
        self._bad: set[str] = set()  # found to be unreadable, so that a loop does not read them again

    def frames(self) -> Iterator[Frame]:
        self.set_status(Status("live"))
        changes = self.options.width or self.options.height or self.options.flip != "none"
        yield from self.paced(self._decoded() if changes else self._turns())

    def leaves_out(self, frame: Frame, error: CastError) -> bool:
        if len(self.paths) == 1:
            return False
        self.skipped += 1
        self._bad.add(os.fspath(frame) if isinstance(frame, (str, os.PathLike)) else "")
        _log.warning("left out %s: %s", frame if isinstance(frame, (str, os.PathLike)) else "a frame", error)
        return True

    def _turns(self) -> Iterator[str]:
        yield from self.paths
        while self.options.loop and (good := [path for path in self.paths if path not in self._bad]):
            yield from good

    def _decoded(self) -> Iterator[Frame]:
        for path in self._turns():
            try:
                yield adjusted(read_image(path), self.options, resize=True)
            except CastError as error:
                if not self.leaves_out(path, error):
                    raise


class IterableSource(Source):
    """Whatever the caller iterates over. Frames are read ahead, so arrays and open images are copied."""

    def __init__(self, frames: Iterable[Frame], options: SourceOptions) -> None:
        if options.loop or options.width or options.height or options.flip != "none":
            raise InputError(
                "An iterable of frames takes no size, flip or loop: these belong to sources that a URI names.",
                remedy="change the frames where they are made (cv2.resize, cv2.flip, itertools.cycle)",
            )
        super().__init__(type(frames).__name__, options, live=False)
        self._frames = frames

    def frames(self) -> Iterator[Frame]:
        self.set_status(Status("live"))
        yield from self.paced(own(frame) for frame in self._frames)


def own(frame: Frame) -> Frame:
    """A frame that stays as it is when its giver uses the same buffer, or closes the image, for the next one."""
    if isinstance(frame, (str, os.PathLike)):
        return frame
    if isinstance(frame, np.ndarray):
        return frame.copy()
    copy = getattr(frame, "copy", None)
    return copy() if callable(copy) else frame
