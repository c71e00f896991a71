"""`Runtime.stream`: a source of frames through the stages of a Runtime, pipelined, in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cast_sdk.arguments import real, shown, whole
from cast_sdk.errors import CastError, InputError, MissingDependencyError
from cast_sdk.runtime.backends.base import default_threads
from cast_sdk.runtime.inputs.reading import Frame
from cast_sdk.runtime.pipeline import LEFT_OUT, Item, Pipeline, Stage
from cast_sdk.runtime.sources.base import Source, Status
from cast_sdk.runtime.sources.opening import open_source

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation
    from cast_sdk.runtime.runtime import Runtime
    from cast_sdk.runtime.tracking.film import Film
    from cast_sdk.runtime.tracking.following import Follower


class Stream(Iterator["Segmentation"]):
    """Segmentations of a source, in order. Closing it, or leaving the loop, ends its threads and its source.

    Attributes:
        source: the open source: its `status`, `uri`, `live` and `skipped` (damaged frames left out).
    """

    def __init__(self, pipeline: Pipeline, source: Source, follower: Follower | None = None) -> None:
        self._pipeline, self.source, self._follower = pipeline, source, follower
        self._given = False  # any result

    @property
    def dropped(self) -> int:
        """Frames shed so far because a newer one was there."""
        return self._pipeline.dropped

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Segmentation:
        try:
            item = next(self._pipeline)
        except StopIteration:
            if not self._given and self.source.skipped:
                raise InputError(
                    f"None of the {self.source.skipped} frames of {self.source.uri} can be read.",
                    remedy="the log names them; check the files",
                ) from None
            raise
        self._given = True
        result = _result(item)
        if self._follower is not None:
            self._follower.follow(result)
        return result

    def close(self) -> None:
        """End the threads; safe to call twice and from any thread."""
        self._pipeline.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stream(
    rt: Runtime,
    source: str | int | os.PathLike[str] | Iterable[Frame] | Source,
    *,
    width: int | None = None,
    height: int | None = None,
    rate: float | None = None,
    flip: str = "none",
    loop: bool = False,
    wait: bool = False,
    latest: bool | None = None,
    max_latency: float | None = None,
    workers: int | None = None,
    network_workers: int | None = None,
    in_flight: int | None = None,
    stall_timeout: float | None = 60.0,
    on_status: Callable[[Status], None] | None = None,
    track: bool = False,
    memory: float | None = None,
    continue_superpixels: bool | None = None,
) -> Stream:
    """Read, prepare, run and finish frames in threads that work at the same time.

    Args:
        rt: the runtime; it may be used for other frames meanwhile.
        source: see `cast_sdk.runtime.sources`: a URI, a path, a camera number or any iterable of frames (each its
            own array: frames are read ahead).
        width, height, rate, flip, loop, wait: see `cast_sdk.runtime.sources.open_source`.
        latest: take the newest frame and drop those that came while all stages were busy. Default: for live sources.
        max_latency: seconds; older frames are shed where a newer one waits.
        workers: threads that prepare frames and compute superpixels. Default: one where the network shares the CPU
            with them, else all cores but one, at most four.
        network_workers: runs of the network side by side. Default: two for files on the CPU, because one run leaves
            cores idle between its parallel parts; else one, because a second one would only add latency.
        in_flight: most frames between source and caller, see `Pipeline`.
        stall_timeout: seconds after which a stage that does not return is an error; None: never.
        on_status: called with the source's `Status` when it changes (connection lost, opened again), from the
            thread that reads the source.
        track: follow segments from frame to frame: `Segmentation.tracks` gives each an id that stays while it stays,
            colours go with the ids, and segments are steadied, see `memory`. For films and cameras; a folder of
            unrelated photographs has nothing to follow.
        memory: frames that tracked segments remember. The network's own segments jump from frame to frame; what is
            shown is what a superpixel mostly belonged to in about so many frames. 0: the network's segments of each
            frame as they are, with ids. Default: 10.
        continue_superpixels: start the superpixels of each frame from those of the frame before: steadier, and less
            work. They begin anew at a cut, and where motion has worn them out. Default: with `track`, where the
            package's own kernel is built.

    Yields:
        Segmentation: with `index` (position in the source), `dropped` (frames shed so far) and, in `timing`, also
        `read` (waiting for the frame and decoding it) and `latency` (from the frame's arrival to this result).

    Raises:
        InputError, MissingDependencyError: at once, for a source that cannot be opened, a `memory` without `track`, or
            superpixels that cannot be continued here.
        StreamError: while iterating, when the source or a stage fails; the cause is the original exception.
    """
    for name, count in (("workers", workers), ("network_workers", network_workers), ("in_flight", in_flight)):
        if count is not None:
            whole(count, name, 1, 1024)
    for name, seconds in (("max_latency", max_latency), ("stall_timeout", stall_timeout)):
        if seconds is not None:
            real(seconds, name, 0, above=True)
    film, follower = _following(rt, track, memory, continue_superpixels)
    opened = open_source(source, width=width, height=height, rate=rate, flip=flip, loop=loop, wait=wait)
    if on_status is not None:
        opened.on_status = on_status
    if workers is None:
        workers = 1 if rt.device == "cpu" else max(1, min(4, default_threads() - 1))
    newest = opened.live if latest is None else latest
    if network_workers is None:
        network_workers = 2 if rt.device == "cpu" and not newest and default_threads() > 1 else 1
    batch = rt.info.batch or 1

    def network(prepared: Any) -> Any:
        items = prepared if batch > 1 else [prepared]
        pairs = list(zip(items, rt.infer(items), strict=True))
        return pairs if batch > 1 else pairs[0]

    def prepare(frame: Frame) -> Any:
        try:
            prepared = rt.prepare(frame)
            return prepared if in_order else rt.add_superpixels(prepared, film)
        except CastError as error:
            if opened.leaves_out(frame, error):
                return LEFT_OUT
            raise

    in_order = film is not None and workers > 1
    if in_order:
        begin = [
            Stage("prepare", prepare, workers),
            Stage("superpixels", lambda prepared: rt.add_superpixels(prepared, film), ordered=True),
        ]
    else:
        begin = [Stage("superpixels", prepare, workers)]
    stages = [
        *begin,
        Stage("model", network, network_workers, batch),
        Stage("finish", lambda pair: rt.finish(*pair)),
    ]
    if in_flight is None:
        # The short last stage needs no frame of its own where each one costs latency.
        in_flight = workers + (len(begin) - 1) + network_workers * batch + (0 if newest else batch + 2)
    pipeline = Pipeline(
        opened,
        stages,
        in_flight=in_flight,
        latest=newest,
        max_latency=max_latency,
        stall_timeout=stall_timeout,
        stop=opened.stop,
    )
    return Stream(pipeline, opened, follower)


def _following(
    rt: Runtime, track: bool, memory: float | None, continue_superpixels: bool | None
) -> tuple[Film | None, Follower | None]:
    """What holds the state of one film: the ordered stage's part and the last one's."""
    if memory is not None and not track:
        raise InputError("A memory was given without track=True.", found=shown(memory), remedy="add track=True")
    if not rt.spec.uses_superpixels or not (track or continue_superpixels):
        return None, None
    from cast_sdk.runtime.tracking.film import Film
    from cast_sdk.runtime.tracking.following import Follower
    from cast_sdk.superpixels import can_continue

    possible = can_continue()
    if continue_superpixels and not possible:
        raise MissingDependencyError(
            "Superpixels can be continued by cast-sdk's own kernel only, and it was not built here.",
            remedy="install a C++ compiler and install cast-sdk again, or leave out continue_superpixels",
        )
    film = Film(rt.spec.superpixels, go_on=possible if continue_superpixels is None else continue_superpixels)
    return film, Follower(memory) if track else None


def _result(item: Item) -> Any:
    result = item.value
    result.index, result.dropped = item.index, item.dropped
    result.timing["read"], result.timing["latency"] = item.timing["read"], item.timing["latency"]
    return result
