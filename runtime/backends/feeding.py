"""What a graph is fed from an image and its superpixels: they themselves, or matrices for graphs made for CPUs."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from cast_sdk.artifact import ExportInfo
from cast_sdk.runtime.backends.ports import ASSIGNMENT, POSITIONS, expected_inputs
from cast_sdk.spec import ModelSpec
from cast_sdk.superpixels.assignment import Mode, resized_assignment

_MODES: dict[str, Mode] = {ASSIGNMENT: "bilinear", POSITIONS: "bicubic"}


class Feeder:
    """Makes the inputs of one graph, run by run, in buffers of its own. Thread-safe.

    Args:
        inputs: names of the graph's inputs.
        shapes: of its matrices (`matrix_shapes`), without the batch; empty for graphs that take superpixels.
    """

    def __init__(self, inputs: Collection[str], shapes: Mapping[str, tuple[int, int]]) -> None:
        self._inputs = tuple(inputs)
        self._shapes = {name: shape for name, shape in shapes.items() if name in self._inputs}
        self.clear()

    def clear(self) -> None:
        """Let go of the buffers; runs that go on keep theirs until they end."""
        # One set for each run at a time. A deque's append and pop are atomic: no lock that a fork could leave held.
        self._idle: deque[dict[str, np.ndarray]] = deque(maxlen=16)

    @contextmanager
    def feed(self, image: np.ndarray, superpixels: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """Arrays by the names of the inputs, for one run: afterwards the matrices are overwritten.

        Args:
            image: uint8 [B, H, W, 3].
            superpixels: int32 [B, H, W], C-contiguous.

        Raises:
            InputError: for labels that do not fit a graph for CPUs.
            MissingDependencyError: for such a graph without the package's own kernel.
        """
        given = {"image": image, "superpixels": superpixels}
        feed = {name: value for name, value in given.items() if name in self._inputs}
        if not self._shapes:
            yield feed
            return
        idle, batch = self._idle, len(image)
        try:
            buffers = idle.pop()
        except IndexError:
            buffers = {}
        buffers = self._grown(buffers, batch)
        used = {name: buffer[:batch] for name, buffer in buffers.items()}
        fill(used, superpixels)
        yield feed | used
        idle.append(buffers)

    def _grown(self, buffers: dict[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
        """The buffers, or larger ones where they hold fewer images."""
        if buffers and len(next(iter(buffers.values()))) >= batch:
            return buffers
        return {name: np.empty((batch, *shape), np.float32) for name, shape in self._shapes.items()}


def matrix_shapes(spec: ModelSpec, info: ExportInfo) -> dict[str, tuple[int, int]]:
    """Rows and columns of the matrices that a graph for CPUs takes, by the names of its inputs; of others none."""
    ports = expected_inputs(spec, info)
    return {name: (info.num_superpixels, int(ports[name][1][2] or 0)) for name in _MODES if name in ports}


def fill(buffers: Mapping[str, np.ndarray], superpixels: np.ndarray) -> None:
    """Compute the matrices of graphs for CPUs in place.

    Args:
        buffers: `ASSIGNMENT` float32 [B, S, ceil(H / 8) * ceil(W / 8)] and `POSITIONS` float32 [B, S, side * side].
        superpixels: int32 [B, H, W].
    """
    height, width = superpixels.shape[1:]
    for name, buffer in buffers.items():
        count, cells = buffer.shape[1:]
        side = round(cells**0.5)
        grid = (-(-height // 8), -(-width // 8)) if name == ASSIGNMENT else (side, side)
        for labels, out in zip(superpixels, buffer, strict=True):
            resized_assignment(np.ascontiguousarray(labels), count, grid, _MODES[name], out)
