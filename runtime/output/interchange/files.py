"""A result as a file that another program opens."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Literal, get_args

from cast_sdk.arguments import one_of
from cast_sdk.runtime.output.interchange.coco import to_coco
from cast_sdk.runtime.output.interchange.cvat import to_cvat
from cast_sdk.runtime.output.interchange.geojson import to_geojson
from cast_sdk.runtime.output.interchange.labelme import to_labelme
from cast_sdk.system.files import atomic_write

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation

Format = Literal["coco", "cvat", "geojson", "labelme"]


def write(result: Segmentation, path: str | os.PathLike[str], kind: Format, level: int) -> None:
    """Write a result in a format of another program.

    Raises:
        InputError: for an unknown format or level.
        ExportError: for a folder that is missing or cannot be written.
    """
    one_of(kind, "format", get_args(Format))
    if kind == "cvat":
        text = to_cvat([result], level)
    else:
        data = {
            "coco": lambda: to_coco([result], [level]),
            "geojson": lambda: to_geojson(result, level),
            "labelme": lambda: to_labelme(result, level),
        }[kind]()
        text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
