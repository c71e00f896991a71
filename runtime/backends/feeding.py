"""What a graph is fed from an image and its superpixels: they themselves, or matrices for graphs made for CPUs."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from cast_sdk.superpixels.assignment import Mode, resized_assignment

ASSIGNMENT, POSITIONS = "assignment", "positions"  # inputs of graphs with target "cpu"
_MODES: dict[str, Mode] = {ASSIGNMENT: "bilinear", POSITIONS: "bicubic"}
Shape = tuple[int, ...]


@contextmanager
def feeding(
    inputs: Mapping[str, tuple[Any, ...]], image: np.ndarray, superpixels: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    """Arrays by the names of a graph's inputs, for one run; afterwards their buffers are used again. Thread-safe.

    Args:
        inputs: names and shapes of the graph's inputs; the first axis may be anything.
        image: uint8 [B, H, W, 3].
        superpixels: int32 [B, H, W], C-contiguous.

    Raises:
        InputError: for labels that do not fit a graph for CPUs.
        MissingDependencyError: for such a graph without the package's own kernel.
    """
    feed = {name: value for name, value in (("image", image), ("superpixels", superpixels)) if name in inputs}
    wanted = {name: (len(image), *shape[1:]) for name, shape in inputs.items() if name in _MODES}
    if not wanted:
        yield feed
        return
    idle = _idle(tuple(wanted.items()))
    try:
        buffers = idle.pop()
    except IndexError:
        buffers = {name: np.empty(shape, np.float32) for name, shape in wanted.items()}
    fill(buffers, superpixels)
    yield feed | buffers
    idle.append(buffers)


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


@functools.lru_cache(maxsize=16)
def _idle(_: tuple[tuple[str, Shape], ...]) -> deque[dict[str, np.ndarray]]:
    # A deque's append and pop are atomic: no lock that a fork could leave held.
    return deque(maxlen=16)
