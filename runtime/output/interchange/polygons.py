"""Outlines of the segments of a label map, exact to the pixel.

Corners lie between pixels: the pixel in column x and row y is the square from (x, y) to (x + 1, y + 1). So a polygon's
area is its number of pixels, and neighbours share their border. Rings do not touch themselves: pixels that meet at a
corner only are apart, as in OGC's simple features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ring = npt.NDArray[np.int32]  # [n, 2] corners (x, y), not closed: the last is joined to the first
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # right, down, left, up: the segment lies to the right


class Polygon(NamedTuple):
    """One connected part of a segment.

    Attributes:
        exterior: int32 [n, 2], corners (x, y) in pixels. Its area by the shoelace formula is positive.
        holes: rings inside it, of negative area.
    """

    exterior: Ring
    holes: tuple[Ring, ...] = ()

    @property
    def area(self) -> int:
        """Pixels inside."""
        return ring_area(self.exterior) + sum(ring_area(hole) for hole in self.holes)


def ring_area(ring: Ring) -> int:
    """Signed area by the shoelace formula; positive for outlines."""
    x, y = ring[:, 0].astype(np.int64), ring[:, 1].astype(np.int64)
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) // 2


def polygons(labels: npt.NDArray[np.int32], count: int) -> list[list[Polygon]]:
    """Polygons of each segment 0..count-1 of a label map [h, w]; negative labels belong to none."""
    exteriors: list[list[Ring]] = [[] for _ in range(count)]
    holes: list[list[Ring]] = [[] for _ in range(count)]
    for label, ring in _rings(labels):
        (exteriors if ring_area(ring) > 0 else holes)[label].append(ring)
    return [_assemble(outer, inner) for outer, inner in zip(exteriors, holes, strict=True)]


def _rings(labels: npt.NDArray[np.int32]) -> list[tuple[int, Ring]]:
    """Every closed border of every segment, with its label."""
    starts, ways, owners, width = _edges(labels)
    following = _following(starts, ways, owners, width)
    rings: list[tuple[int, Ring]] = []
    todo = bytearray(b"\1") * len(following)
    steps = following.tolist()
    for first in range(len(steps)):
        if not todo[first]:
            continue
        loop, edge = [], first
        while todo[edge]:
            todo[edge] = 0
            loop.append(edge)
            edge = steps[edge]
        order = np.array(loop)
        corners = starts[order[ways[order] != ways[np.roll(order, 1)]]]
        rings += [(int(owners[first]), _points(part, width)) for part in _simple(corners.tolist())]
    return rings


def _edges(
    labels: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Unit edges between a segment and what is beside it: start (number of a corner), way, and owner of each."""
    height, width = labels.shape
    padded = np.full((height + 2, width + 2), -1, labels.dtype)
    padded[1:-1, 1:-1] = labels
    columns = width + 1
    starts, ways, owners = [], [], []
    # What lies above, to the right, below and to the left of each pixel, and the corner where that edge starts.
    beside = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    for way, (neighbour, (down, across)) in enumerate(zip(beside, ((0, 0), (0, 1), (1, 1), (1, 0)), strict=True)):
        rows, cells = np.nonzero((labels != neighbour) & (labels >= 0))
        starts.append((rows + down) * columns + cells + across)
        ways.append(np.full(len(rows), way))
        owners.append(labels[rows, cells].astype(np.int64))
    return np.concatenate(starts), np.concatenate(ways), np.concatenate(owners), columns


def _following(
    starts: npt.NDArray[np.int64], ways: npt.NDArray[np.int64], owners: npt.NDArray[np.int64], columns: int
) -> npt.NDArray[np.int64]:
    """The edge after each edge along its segment's border. Where two go on, the one that stays at the same pixel."""
    corners = int(starts.max(initial=0)) + 2 * columns
    key = owners * corners + starts
    order = np.argsort(key, kind="stable")
    ordered = key[order]
    ends = owners * corners + starts + _STEPS[ways, 0] + _STEPS[ways, 1] * columns
    first = np.searchsorted(ordered, ends)
    second = np.minimum(first + 1, len(ordered) - 1)
    choice = (ordered[second] == ends) & (ways[order[second]] == (ways + 1) % 4)
    return order[np.where(choice, second, first)]


def _simple(corners: list[int]) -> list[list[int]]:
    """A closed walk cut into walks that visit no corner twice."""
    parts: list[list[int]] = []
    walk: list[int] = []
    position: dict[int, int] = {}
    for corner in corners:
        if corner in position:
            begin = position[corner]
            part = walk[begin:]
            for left in part:
                del position[left]
            del walk[begin:]
            parts.append(part)
        position[corner] = len(walk)
        walk.append(corner)
    return [*parts, walk]


def _points(corners: list[int], columns: int) -> Ring:
    numbers = np.array(corners)
    return np.stack([numbers % columns, numbers // columns], 1).astype(np.int32)


def _assemble(exteriors: list[Ring], holes: list[Ring]) -> list[Polygon]:
    """Each hole goes to the smallest outline around the pixel at its edge."""
    inside: list[list[Ring]] = [[] for _ in exteriors]
    areas = [ring_area(ring) for ring in exteriors]
    for hole in holes:
        point = _pixel_beside(hole)
        around = [index for index, ring in enumerate(exteriors) if _contains(ring, point)]
        inside[min(around, key=lambda index: areas[index])].append(hole)
    return [Polygon(ring, tuple(inner)) for ring, inner in zip(exteriors, inside, strict=True)]


def _pixel_beside(hole: Ring) -> tuple[float, float]:
    """Centre of a pixel of the segment beside a hole: the one to the right of the hole's first edge."""
    (x, y), (next_x, next_y) = hole[0], hole[1]
    step_x, step_y = np.sign(next_x - x), np.sign(next_y - y)
    return x + 0.5 * step_x - 0.5 * step_y, y + 0.5 * step_y + 0.5 * step_x


def _contains(ring: Ring, point: tuple[float, float]) -> bool:
    """Whether a point that lies on no grid line is inside: crossings of the ray to the right."""
    x, y = point
    x1, y1 = ring[:, 0], ring[:, 1]
    y2 = np.roll(y1, -1)
    upright = (y1 > y) != (y2 > y)
    return bool(np.count_nonzero(upright & (x1 > x)) % 2)
