"""Sources that need no device: image files, and whatever the caller iterates over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cast_sdk.errors import InputError
from cast_sdk.runtime.preprocess import Frame, read_image
from cast_sdk.runtime.sources.base import Source, SourceOptions, Status, adjusted


class ImageSource(Source):
    """Image files in order. They are decoded where they are prepared, in the pipeline's workers."""

    def __init__(self, uri: str, options: SourceOptions, paths: list[str]) -> None:
        super().__init__(uri, options, live=False)
        self.paths = paths

    def frames(self) -> Iterator[Frame]:
        self.set_status(Status("live"))
        changes = self.options.width or self.options.height or self.options.flip != "none"
        yield from self.paced(self._decoded(path) if changes else path for path in self._turns())

    def _turns(self) -> Iterator[str]:
        while True:
            yield from self.paths
            if not self.options.loop:
                return

    def _decoded(self, path: str) -> Frame:
        return adjusted(read_image(path), self.options, resize=True)


class IterableSource(Source):
    """Whatever the caller iterates over."""

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
        yield from self.paced(self._frames)
