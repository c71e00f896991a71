"""Images with masks in one of three layouts.

masked = find_masked(Path("roads"))     # index PNG beside images, COCO JSON, or LabelMe JSON
"""

from __future__ import annotations

from pathlib import Path

from cast_sdk.errors import InputError
from cast_sdk.training.own.dense import coco, index_masks, labelme
from cast_sdk.training.own.dense.base import Masked, Unlabelled

MAX_CLASSES = 254
LAYOUTS = "DATA/images + DATA/masks (index PNG), a COCO JSON with its images, or LabelMe JSON files beside the images"


def find_masked(data: Path, unlabelled: Unlabelled = "background") -> Masked:
    """The images and masks of a folder or of a COCO JSON file.

    Args:
        data: what the person named.
        unlabelled: what pixels outside of all polygons are.

    Raises:
        InputError: when none of the layouts is there, or for masks that cannot be read.
    """
    if not data.exists():
        raise InputError(f"The data folder {data} does not exist.", remedy=f"give {LAYOUTS}")
    for layout in (coco.find, labelme.find):
        found = layout(data, unlabelled)
        if found is not None:
            return _checked(found, data)
    if data.is_dir():
        found = index_masks.find(data)
        if found is not None:
            return _checked(found, data)
    inside = sorted(path.name for path in data.iterdir()) if data.is_dir() else [data.name]
    raise InputError(
        f"There are no images with masks in {data}.",
        found=", ".join(inside[:8]) or "an empty folder",
        remedy=f"give {LAYOUTS}",
    )


def _checked(masked: Masked, data: Path) -> Masked:
    if len(masked) < 2:
        raise InputError(
            f"There is only one image with a mask in {data}.", remedy="give at least two: one to train, one to judge"
        )
    if len(masked.class_names) < 2:
        raise InputError(
            f"There is only one class in the masks of {data}: {', '.join(masked.class_names)}.",
            remedy="label at least two classes, or leave pixels outside of the class (background)",
        )
    if len(masked.class_names) > MAX_CLASSES:
        raise InputError(
            f"There are {len(masked.class_names)} classes in {data}, and {MAX_CLASSES} are the most.",
            remedy="join classes",
        )
    return masked
