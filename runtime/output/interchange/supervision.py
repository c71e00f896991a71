"""Detections of the library `supervision`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.runtime.output.interchange.tables import features

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation

MOST_BYTES = 2 << 30  # of masks: one byte per pixel and segment


def to_supervision(result: Segmentation, level: int, *, masks: bool = True) -> Any:
    """The segments of a level as `supervision.Detections`.

    `xyxy` are the boxes; `class_id` is the class of most of the pixels for a model with a dense head, else the number
    of the segment; `tracker_id` are the tracks of a stream; `data` holds `segment`, `parent` and `area`. Segments
    without a pixel at the frame's size are left out.

    Args:
        result: of one frame.
        level: whose segments.
        masks: with `mask`, bool [n, h, w].

    Raises:
        MissingDependencyError: without supervision.
        InputError: for masks of more than 2 GiB.
    """
    try:
        import supervision
    except ImportError as error:
        raise MissingDependencyError(
            "supervision cannot be imported.", found=str(error), remedy="pip install supervision"
        ) from error
    table = features(result, level)
    there = np.flatnonzero(table["area"])
    height, width = result.size
    if masks and len(there) * height * width > MOST_BYTES:
        raise InputError(
            f"The masks of {len(there)} segments of {width} x {height} pixels take more than 2 GiB.",
            remedy="give masks=False, or use labels(level), polygons(level) or to_coco",
        )
    box = table["box"][there].astype(np.float32)
    return supervision.Detections(
        xyxy=np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], 1),
        mask=result.labels(level)[None] == there[:, None, None] if masks else None,
        class_id=table.get("semantic", table["id"])[there].astype(int),
        tracker_id=table["track"][there].astype(int) if "track" in table else None,
        data={"segment": there, "parent": table["parent"][there], "area": table["area"][there]},
    )
