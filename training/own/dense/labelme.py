"""Masks that LabelMe drew: a JSON file beside each image."""

from __future__ import annotations

import base64
import dataclasses
import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.system.files import read_json
from cast_sdk.training.data.dense.base import Pixels
from cast_sdk.training.own.classes.labelled import visible_images
from cast_sdk.training.own.dense.base import (
    Masked,
    Unlabelled,
    background_first,
    check_entries,
    json_files,
    polygon_map,
)
from cast_sdk.training.own.splitting import digest, part_named, settle

Outline = npt.NDArray[np.float64]
Stamp = tuple[npt.NDArray[np.bool_], int, int]  # a mask, and where its left and top lie

IGNORED_LABEL = "__ignore__"  # LabelMe's own name for pixels that do not count


def find(data: Path, unlabelled: Unlabelled) -> Masked | None:
    """Images and masks of LabelMe files in a folder and below; None where there are none.

    Raises:
        InputError: for damaged files, images that are not found, or shapes that enclose nothing.
    """
    if not data.is_dir():
        return None
    read = [
        (file, content) for file in json_files(data.rglob("*.json"), data) if (content := _content(file)) is not None
    ]
    if not read:
        return None
    labels = sorted({shape["label"] for _, content in read for shape in content["shapes"]} - {IGNORED_LABEL})
    class_names, start = background_first(labels, unlabelled)
    number = {name: at for at, name in enumerate(class_names)} | {IGNORED_LABEL: 255}
    images, masks, parts, marks, lacking = [], [], [], [], []
    for file, content in read:
        path = _image(file, content)
        if path is None:
            lacking.append(file.name)
            continue
        shapes = [(number[shape["label"]], _area(file, shape)) for shape in content["shapes"]]
        images.append(path)
        masks.append(functools.partial(_drawn, file, shapes, start))
        below = (part_named(folder) for folder in file.relative_to(data).parts[:-1])
        parts.append(next((part for part in below if part is not None), None))
        marks.append(digest(json.dumps(content["shapes"], sort_keys=True).encode()))
    if lacking:
        raise InputError(
            f"{len(lacking)} LabelMe files are without their image, first {lacking[0]}.",
            remedy="put each image beside its JSON file",
        )
    used, split, notes = settle(parts)
    bare = len(set(visible_images(data)) - set(images))
    if bare:
        notes.append(f"images without a JSON file are left out ({bare})")
    names = [str(path.relative_to(data)) if path.is_relative_to(data) else str(path) for path in images]
    found = Masked(names, images, masks, class_names, (), None, "LabelMe JSON", notes, marks)
    return dataclasses.replace(found.only(used), split=split)


def _content(file: Path) -> dict[str, Any] | None:
    """What a LabelMe file holds; None for other JSON."""
    content = read_json(file)
    if not isinstance(content, dict) or not {"shapes", "imagePath"} <= set(content):
        return None
    check_entries(file, content, "shapes", ("label",))
    for shape in content["shapes"]:
        if not isinstance(shape["label"], str):
            raise InputError(
                f"A label of {file} is no text.", found=repr(shape["label"])[:80], remedy="give the shape a name"
            )
    return content


def _image(file: Path, content: dict[str, Any]) -> Path | None:
    named = file.parent / str(content["imagePath"]).replace("\\", "/")
    beside = [named, *(file.with_suffix(suffix) for suffix in (".jpg", ".jpeg", ".png", ".JPG"))]
    return next((path for path in beside if path.is_file()), None)


def _area(file: Path, shape: dict[str, Any]) -> Outline | Stamp:
    """What a shape covers: its corners, float64 [n, 2] of x and y, or a mask and its place."""
    kind = shape.get("shape_type", "polygon")
    try:
        points = np.asarray(shape.get("points", []), np.float64).reshape(-1, 2)
        if kind == "mask":
            return _stamp(shape["mask"], points)
    except (KeyError, TypeError, ValueError, OverflowError, OSError, IndexError) as error:
        raise InputError(
            f"A shape of {file} is damaged: {kind}, label {shape['label']!r}.",
            found=f"{type(error).__name__}: {error}",
            remedy="draw it again, or remove it",
        ) from error
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.min(0), points.max(0)
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if kind == "circle" and len(points) == 2:
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        return points[0] + np.linalg.norm(points[1] - points[0]) * np.stack([np.cos(angle), np.sin(angle)], 1)
    if kind in ("polygon", "oriented_rectangle") and len(points) >= 3:
        return points
    raise InputError(
        f"A shape of {file} encloses no pixels: {kind} of {len(points)} points, label {shape['label']!r}.",
        remedy="draw a polygon, rectangle, circle or mask, or remove the shape",
    )


def _stamp(encoded: str, points: Outline) -> Stamp:
    """A mask that LabelMe's AI tools drew: a PNG in base64, whose first pixel lies at the first corner of its box."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as image:
        mask = np.array(image.convert("L")) > 0
    left, top = np.round(points[0]).astype(int).tolist()
    return mask, left, top


def _drawn(file: Path, shapes: Sequence[tuple[int, Outline | Stamp]], start: int, size: tuple[int, int]) -> Pixels:
    """Class map uint8 [h, w]; later shapes lie on top."""
    drawn = np.full(size, start, np.uint8)
    for value, area in shapes:
        if not isinstance(area, tuple):
            drawn[polygon_map(size, [(1, [area])], 0) > 0] = value
            continue
        mask, left, top = area
        part = drawn[max(top, 0) : top + mask.shape[0], max(left, 0) : left + mask.shape[1]]
        if left < 0 or top < 0 or part.shape != mask.shape:
            raise InputError(
                f"A mask in {file} does not lie within its image.",
                found=f"{mask.shape[1]} x {mask.shape[0]} pixels from {left}, {top} on in {size[1]} x {size[0]}",
                remedy="draw it again, or remove it",
            )
        part[mask] = value
    return drawn
