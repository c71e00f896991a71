"""A tracker follows the segments of a film: the same ids for the same segments, level by level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cast_sdk.arguments import real
from cast_sdk.runtime.tracking import compiled, plain
from cast_sdk.runtime.tracking.membership import Rule
from cast_sdk.runtime.tracking.shades import FrameShades

Labels = npt.NDArray[np.int32]

MEMORY = 10.0  # frames: what a superpixel belonged to counts as much as the last so many frames
_MARGIN = 0.1  # a superpixel goes over when it belongs to another track by so much more


@dataclass(frozen=True)
class Tracks:
    """The tracks of one frame.

    Attributes:
        ids: one int64 [n_l] per level, the track of each segment; unique among all levels and frames of a stream.
        ages: one int64 [n_l] per level, frames since the birth of the track (0: new in this frame).
        shades: gives per level the lightness and the hue of each segment, float64 [n_l]; None before a stream sets it.
    """

    ids: tuple[npt.NDArray[np.int64], ...]
    ages: tuple[npt.NDArray[np.int64], ...]
    shades: FrameShades | None = None


class Tracker:
    """Follows segments from frame to frame. One per film; frames in order.

    Each level remembers to what share each superpixel belongs to each track, a running mean over about `memory` frames.
    The segments of a new frame are assigned to tracks by the shares that they have in common, and a superpixel goes on
    with the shares of the one that covered most of it in the frame before. What is shown is the tracks, each with its
    parent in the next level as a whole: so a segmentation that jumps to and fro settles to what it mostly is, and
    follows a lasting change within about `memory` frames.

    Args:
        memory: frames, 0 or more. With 0 the segments of each frame stay as the network gave them and only get ids.
    """

    def __init__(self, memory: float = MEMORY) -> None:
        real(memory, "memory", 0, 10_000)
        self.memory = memory
        rule = Rule(rate=1 / (1 + memory), margin=_MARGIN if memory else 0.0)
        self._state = compiled.State(rule) if compiled.available() else plain.State(rule)
        self._alive: list[npt.NDArray[np.int64]] = []
        self._next = 0  # ids go on after a reset: none is ever used twice

    def reset(self) -> None:
        """Forget everything, as after a cut: all tracks of the next frame are new."""
        self._state.reset()
        self._alive = []

    def alive(self) -> list[npt.NDArray[np.int64]]:
        """Ids per level that are shown or may be shown again."""
        return self._alive

    def update(self, superpixels: Labels, members: tuple[Labels, ...]) -> tuple[list[Labels], Tracks]:
        """Take the next frame.

        Args:
            superpixels: int32 [h, w], labels 0..n_0-1 without gaps.
            members: one int32 [n_0] per level, each superpixel's segment; `members[0]` counts up (`Hierarchy`).

        Returns:
            The segments to show, as `members`; and their tracks. Levels nest, and segments have no gaps.

        Raises:
            ValueError: for labels or segments that are negative or not below n_0.
        """
        shown, ids, ages, self._alive, self._next = self._state.update(superpixels, members, self._next)
        return shown, Tracks(ids, ages)
