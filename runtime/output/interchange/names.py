"""What segments are called in files of other programs."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from cast_sdk.runtime.output.interchange.tables import features

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation


def labels_of(result: Segmentation, level: int) -> list[str]:
    """Label of each segment: the class of most of its pixels for a model with a dense head, else "level N"."""
    if "semantic" not in result.outputs:
        return [f"level {level}"] * result.num_segments(level)
    return [result.class_name(int(index)) for index in features(result, level)["semantic"]]


def file_name(result: Segmentation, number: int = 1) -> str:
    """Name of the image a result is of, without folders; "image_N.png" where it has none."""
    return PurePath(result.source).name if result.source else f"image_{number}.png"
