"""The last stage of a tracked stream: from the network's segments of one frame to steady ones with tracks."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from cast_sdk.hierarchy import Hierarchy
from cast_sdk.runtime.tracking.shades import Shades
from cast_sdk.runtime.tracking.tracker import MEMORY, Tracker, Tracks

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation


class Follower:
    """Gives the results of one film, in order, their tracks. A new scene begins with new ones.

    Args:
        memory: frames, see `Tracker`. None: the default.
    """

    def __init__(self, memory: float | None = None) -> None:
        self._tracker = Tracker(MEMORY if memory is None else memory)
        self._shades = Shades()
        self._scene: int | None = None

    def follow(self, result: Segmentation) -> None:
        """Put steady segments and their tracks into a result; `timing` gets `tracking`, which counts for `latency`."""
        if result.hierarchy is None:
            return
        start = perf_counter()
        if result.scene != self._scene:
            self._tracker.reset()
            self._scene = result.scene
        before = result.hierarchy
        members, tracks = self._tracker.update(before.superpixels, before.members)
        ids = before.ids
        if self._tracker.memory:
            none = np.full(len(ids[0]), -1, np.int32)
            ids = (ids[0], *(none[: len(track)] for track in tracks.ids[1:]))
        result.hierarchy = Hierarchy(before.superpixels, tuple(members), ids)
        shades = self._shades.of_next(tracks.ids, members, self._tracker.alive())
        result.tracking = Tracks(tracks.ids, tracks.ages, shades)
        elapsed = (perf_counter() - start) * 1e3
        result.timing["tracking"] = elapsed
        for total in ("total", "latency"):
            result.timing[total] = result.timing.get(total, 0.0) + elapsed
