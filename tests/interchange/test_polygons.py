"""Outlines: exact, simple, nested as OGC's simple features ask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cast_sdk.runtime.output.interchange.polygons import Polygon, polygons, ring_area


def painted(parts: list[Polygon], shape: tuple[int, int]) -> np.ndarray:
    """Mask of the polygons by the parity of the borders to the left of each pixel."""
    height, width = shape
    crossings = np.zeros((height, width + 1), int)
    for ring in (ring for part in parts for ring in (part.exterior, *part.holes)):
        for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if x1 == x2:
                crossings[min(y1, y2) : max(y1, y2), x1] += 1
    return crossings.cumsum(1)[:, :-1] % 2 == 1


def check(labels: np.ndarray) -> None:
    count = int(labels.max()) + 1
    for segment, parts in enumerate(polygons(labels, count)):
        mask = labels == segment
        assert sum(part.area for part in parts) == mask.sum()
        assert np.array_equal(painted(parts, labels.shape), mask)
        components, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
        assert len(parts) == components - 1
        for part in parts:
            assert ring_area(part.exterior) > 0 and all(ring_area(hole) < 0 for hole in part.holes)
            for ring in (part.exterior, *part.holes):
                assert len({tuple(point) for point in ring.tolist()}) == len(ring) >= 4
                along = np.sign(np.roll(ring, -1, axis=0) - ring)
                assert (np.abs(along).sum(1) == 1).all() and not (along == np.roll(along, 1, axis=0)).all(1).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_polygons_are_the_segments(height, width, count, seed):
    check(np.random.default_rng(seed).integers(-1, count, (height, width)).astype(np.int32))


@pytest.mark.parametrize(
    "rows",
    [
        ["000", "010", "000"],  # a hole
        ["0001", "0110", "0100", "0000"],  # a hole that touches the outline at a corner
        ["00000", "01110", "01010", "01110", "00000"],  # an island in a hole
        ["01", "10"],  # parts that meet at a corner
    ],
)
def test_shapes_that_are_easily_wrong(rows):
    check(np.array([[int(cell) for cell in row] for row in rows], np.int32))


def test_polygons_of_a_result(seg, cropped):
    for result in (seg, cropped):
        for level in range(5):
            labels = result.labels(level)
            found = result.polygons(level)
            assert len(found) == result.num_segments(level)
            for segment, parts in enumerate(found):
                assert np.array_equal(painted(parts, labels.shape), labels == segment)


def test_they_are_valid_for_a_geometry_library(seg):
    shapely = pytest.importorskip("shapely")
    for parts in seg.polygons(1):
        for part in parts:
            shape = shapely.Polygon(part.exterior, part.holes)
            assert shape.is_valid and shape.area == part.area and shape.exterior.is_ccw


def test_nothing_but_a_crop_has_no_polygons():
    assert polygons(np.full((3, 4), -1, np.int32), 2) == [[], []]
