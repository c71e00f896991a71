"""A Segmentation as plain data for JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cast_sdk.runtime.output import rle
from cast_sdk.taxonomy import path_table

if TYPE_CHECKING:
    from cast_sdk.runtime.preprocess import Geometry
    from cast_sdk.runtime.result import Segmentation
    from cast_sdk.runtime.taxonomy import PathClass

SCHEMA_VERSION = 1


def to_dict(
    result: Segmentation, *, masks: bool = True, levels: Iterable[int] | None = None, top: int = 5
) -> dict[str, Any]:
    """Fields: `schema_version`, `model`, `source`, `size` [height, width], `top`, `unsure`, `embedding`, `timing_ms`,
    `levels`.

    Each level has `level`, `num_segments` and `segments`; a segment has `id`, `parent` (its segment at the next level;
    null at the last), `area` (pixels), `box` [x, y, width, height], with `masks` its `rle` (see `output.rle`), and in a
    stream with `track=True` its `track`.
    A taxonomy adds `path`: `level` (name), `class_id`, `name` and `probability` of each head's class, coarse to fine;
    and where the tree is known `consistent_path`, the same for its most probable path.
    A dense head adds `semantic`: `class_id`, `name`, `area` and `rle` of every class in the frame.

    Args:
        result: of one frame.
        masks: include the run-length masks.
        levels: of these levels; None: all.
        top: how many classes.
    """
    data: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": result.spec.name,
        "source": result.source,
        "size": list(result.size),
        "top": [
            {"class_id": index, "name": name, "probability": round(probability, 6)}
            for index, name, probability in result.top(top)
        ],
        "unsure": result.unsure,
        "embedding": [float(f"{value:.6g}") for value in result.embedding],
        "timing_ms": {stage: round(value, 3) for stage, value in result.timing.items()},
        "levels": [],
    }
    if result.spec.taxonomy:
        data["path"] = path_entries(result.path())
        if path_table(result.spec.taxonomy) is not None:
            data["consistent_path"] = path_entries(result.path(consistent=True))
    if result.hierarchy is not None:
        wanted = range(result.num_levels + 1) if levels is None else levels
        data["levels"] = [_level(result, level, masks) for level in wanted]
    if result.semantic is not None:
        data["semantic"] = _semantic(result, result.semantic, masks)
    return data


def path_entries(path: list[PathClass]) -> list[dict[str, Any]]:
    """A path as plain data: `level`, `class_id`, `name`, `probability` of each class."""
    return [{**one._asdict(), "probability": round(one.probability, 6)} for one in path]


def _level(result: Segmentation, level: int, masks: bool) -> dict[str, Any]:
    count = result.num_segments(level)
    hierarchy = result.hierarchy
    assert hierarchy is not None
    parents = result.parents(level).tolist() if level < result.num_levels else [None] * count
    segments = [
        {"id": index, "parent": parents[index], "area": area, "box": box}
        for index, (area, box) in enumerate(zip(*extents(result.geometry, hierarchy.labels(level), count), strict=True))
    ]
    if result.tracking is not None:
        for segment, track in zip(segments, result.tracks(level).tolist(), strict=True):
            segment["track"] = track
    if masks:
        for segment, mask in zip(segments, rle.encode_labels(result.labels(level), count), strict=True):
            segment["rle"] = mask
    return {"level": level, "num_segments": count, "segments": segments}


def _semantic(result: Segmentation, classes: npt.NDArray[np.int32], masks: bool) -> list[dict[str, Any]]:
    present = np.unique(classes[classes >= 0])
    areas = _areas(classes, int(present.max(initial=-1)) + 1)
    entries: list[dict[str, Any]] = [
        {"class_id": int(index), "name": result.class_name(int(index)), "area": areas[index]} for index in present
    ]
    if masks:
        encoded = rle.encode_labels(classes, len(areas))
        for entry in entries:
            entry["rle"] = encoded[entry["class_id"]]
    return entries


def _areas(labels: npt.NDArray[np.int32], count: int) -> list[int]:
    return [int(area) for area in np.bincount(labels.ravel() + 1, minlength=count + 1)[1:]]


def extents(geometry: Geometry, labels: npt.NDArray[np.int32], count: int) -> tuple[list[int], list[list[int]]]:
    """Pixels and bounding box of each segment 0..count-1 in the frame, from a map of the model's size.

    What counting and `boxes` say of `geometry.to_frame(labels)`, which is some thirty times larger and is not made.
    """
    rows, columns = geometry.spans()
    shown = labels[np.ix_(rows.source, columns.source)]
    if not shown.size:  # no pixel of a tiny frame has its centre inside the crop
        return [0] * count, [[0] * 4 for _ in range(count)]
    pixels = np.outer(rows.length, columns.length)
    areas = np.bincount(shown.ravel(), weights=pixels.ravel(), minlength=count)
    x, y, width, height = np.array(boxes(shown, count), np.int64).reshape(count, 4).T
    left, right = columns.first[x], (columns.first + columns.length)[x + width - 1]
    top, bottom = rows.first[y], (rows.first + rows.length)[y + height - 1]
    found = np.where(width > 0, [left, top, right - left, bottom - top], 0).T
    return [int(area) for area in areas], found.tolist()


def boxes(labels: npt.NDArray[np.int32], count: int) -> list[list[int]]:
    """Bounding box [x, y, width, height] per segment; zeros for one without a pixel (a frame smaller than the map)."""
    height, width = labels.shape
    boxes = np.zeros((2, count, 2), np.int64)
    for axis, length in ((1, width), (0, height)):
        # Which segments appear in each column (row): a [count + 1, length] table of first and last sightings.
        seen = np.zeros((count + 1, length), bool)
        position = np.arange(length)
        grid = np.broadcast_to(position[None, :] if axis == 1 else position[:, None], labels.shape)
        seen[labels + 1, grid] = True
        found = seen[1:]
        first = found.argmax(1)
        last = length - found[:, ::-1].argmax(1)
        boxes[1 - axis, :, 0] = first
        boxes[1 - axis, :, 1] = np.where(found.any(1), last - first, 0)
    return [[int(x), int(y), int(w), int(h)] for (x, w), (y, h) in zip(boxes[0], boxes[1], strict=True)]
