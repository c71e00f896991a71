"""Areas and boxes from the model's map are those of the map of the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cast_sdk.runtime.output.serialise import extents
from cast_sdk.runtime.preprocess import fit_geometry

SIDES = st.integers(1, 90)


@settings(max_examples=150, deadline=None)
@given(
    SIDES, SIDES, st.integers(8, 40), st.sampled_from(["stretch", "crop"]), st.integers(1, 9), st.integers(0, 2**32 - 1)
)
def test_they_are_what_counting_says(height, width, side, fit, count, seed):
    geometry = fit_geometry((height, width), (side, side), fit)
    labels = np.random.default_rng(seed).integers(0, count, (side, side)).astype(np.int32)
    labels[: side // 2, : side // 2] = 0  # one that is large and others that are not
    frame = geometry.to_frame(labels)
    areas, boxes = extents(geometry, labels, count)
    for segment in range(count):
        rows, columns = np.nonzero(frame == segment)
        assert areas[segment] == len(rows)
        if not len(rows):
            assert boxes[segment] == [0, 0, 0, 0]
            continue
        x, y, w, h = boxes[segment]
        assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("frame", [(480, 640), (37, 2000), (3, 5)])
def test_rows_and_columns_are_spread_as_the_map_is(frame):
    for fit in ("stretch", "crop"):
        geometry = fit_geometry(frame, (96, 96), fit)
        rows, columns = geometry.spans()
        numbered = geometry.to_frame(np.arange(96 * 96, dtype=np.int32).reshape(96, 96))
        for spans, axis, seen in ((rows, 1, numbered // 96), (columns, 0, numbered % 96)):
            found = np.where(numbered < 0, -1, seen).max(axis)
            assert np.array_equal(found[found >= 0], np.repeat(spans.source, spans.length))
            assert np.array_equal(found[spans.first], spans.source)


def test_json_without_masks_makes_no_map_of_the_frame(monkeypatch):
    import cast_sdk
    from cast_sdk import bundled

    with cast_sdk.Runtime(threads=1) as runtime:
        seg = runtime.segment(bundled.photos()[0])
    whole = seg.to_dict()
    monkeypatch.setattr(cast_sdk.Segmentation, "labels", None)
    short = seg.to_dict(masks=False)
    for level in whole["levels"]:
        for segment in level["segments"]:
            assert sum(segment.pop("rle")["counts"][1::2]) == segment["area"]
    assert short == whole
