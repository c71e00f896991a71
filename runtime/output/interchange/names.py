"""What segments are called in files of other programs."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cast_sdk.runtime.inputs.addresses import is_address
from cast_sdk.runtime.output.interchange.tables import classes_of

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation


def labels_of(result: Segmentation, level: int) -> list[str]:
    """Label of each segment: the class of most of its pixels for a model with a dense head, else "level N"."""
    count = result.num_segments(level)
    classes = classes_of(result, level)
    if classes is None:
        return [f"level {level}"] * count
    return [result.class_name(int(index)) for index in classes]


def file_name(result: Segmentation, number: int = 1) -> str:
    """Name of the image a result is of, without folders, and of an address without what follows the path.

    "image_N.png" where it has none.
    """
    path = result.source or ""
    if is_address(path):
        path = urlsplit(path).path
    return PurePath(path).name or f"image_{number}.png"
