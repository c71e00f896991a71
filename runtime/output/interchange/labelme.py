"""LabelMe's JSON: one mask per segment, read by LabelMe 5.2 and later."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from cast_sdk.errors import InputError
from cast_sdk.runtime.inputs.addresses import is_address
from cast_sdk.runtime.output.interchange.names import file_name, labels_of
from cast_sdk.runtime.output.serialise import boxes

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation

VERSION = "5.2.0"  # the first that has masks


def to_labelme(result: Segmentation, level: int, *, embed: bool | None = None) -> dict[str, Any]:
    """The content of a LabelMe file; it lies beside its image, whose name it holds.

    Args:
        result: of one image.
        level: whose segments.
        embed: store the image in the file; None: where it lies behind an address or has no name.

    Raises:
        InputError: when the image is to be stored and the frame was let go.
    """
    from cast_sdk.runtime.output.drawing import encode

    if embed is None:
        embed = result.source is None or is_address(result.source)
    if embed and result.frame is None:
        raise InputError(
            "The frame of this result was let go, so it cannot be stored in the file.", remedy="keep seg.frame"
        )
    image = base64.b64encode(encode(result.frame, ".png")).decode() if embed and result.frame is not None else None
    labels = result.labels(level)
    shapes = []
    for index, (label, (x, y, width, height)) in enumerate(
        zip(labels_of(result, level), boxes(labels, result.num_segments(level)), strict=True)
    ):
        if not width:
            continue
        mask = (labels[y : y + height, x : x + width] == index).astype(np.uint8)
        shapes.append(
            {
                "label": label,
                "points": [[x, y], [x + width - 1, y + height - 1]],
                "group_id": index,
                "description": "",
                "shape_type": "mask",
                "flags": {},
                "mask": base64.b64encode(encode(mask, ".png")).decode(),
            }
        )
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": file_name(result),
        "imageData": image,
        "imageHeight": result.size[0],
        "imageWidth": result.size[1],
    }
