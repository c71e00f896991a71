"""Masks that LabelMe drew: a JSON file beside each image."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from cast_sdk.errors import InputError
from cast_sdk.training.own.classes.labelled import TRAIN, VAL, VALIDATION
from cast_sdk.training.own.dense.base import Masked, Unlabelled, background_first, polygon_map
from cast_sdk.training.own.splitting import digest

IGNORED_LABEL = "__ignore__"  # LabelMe's own name for pixels that do not count


def find(data: Path, unlabelled: Unlabelled) -> Masked | None:
    """Images and masks of LabelMe files in a folder and below; None where there are none.

    Raises:
        InputError: for images that are not found, or shapes that enclose nothing.
    """
    if not data.is_dir():
        return None
    read = [(file, content) for file in sorted(data.rglob("*.json")) if (content := _content(file)) is not None]
    if not read:
        return None
    labels = sorted({str(shape["label"]) for _, content in read for shape in content["shapes"]} - {IGNORED_LABEL})
    class_names, start = background_first(labels, unlabelled)
    number = {name: at for at, name in enumerate(class_names)} | {IGNORED_LABEL: 255}
    images, masks, parts, marks, lacking = [], [], [], [], []
    for file, content in read:
        path = _image(file, content)
        if path is None:
            lacking.append(file.name)
            continue
        shapes = [(number[str(shape["label"])], [_outline(file, shape)]) for shape in content["shapes"]]
        images.append(path)
        masks.append(functools.partial(polygon_map, shapes=shapes, start=start))
        below = [part.lower() for part in file.relative_to(data).parts[:-1]]
        parts.append(TRAIN if "train" in below else VAL if any(name in below for name in VALIDATION) else None)
        marks.append(digest(json.dumps(content["shapes"], sort_keys=True).encode()))
    if lacking:
        raise InputError(
            f"{len(lacking)} LabelMe files are without their image, first {lacking[0]}.",
            remedy="put each image beside its JSON file",
        )
    split = None if None in parts or VAL not in parts or TRAIN not in parts else np.array(parts, np.int8)
    names = [str(path.relative_to(data)) if path.is_relative_to(data) else str(path) for path in images]
    return Masked(names, images, masks, class_names, (), split, "LabelMe JSON", [], marks)


def _content(file: Path) -> dict[str, Any] | None:
    """What a LabelMe file holds; None for other JSON."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None
    return content if isinstance(content, dict) and {"shapes", "imagePath"} <= set(content) else None


def _image(file: Path, content: dict[str, Any]) -> Path | None:
    named = file.parent / str(content["imagePath"]).replace("\\", "/")
    beside = [named, *(file.with_suffix(suffix) for suffix in (".jpg", ".jpeg", ".png", ".JPG"))]
    return next((path for path in beside if path.is_file()), None)


def _outline(file: Path, shape: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Corners of a shape, float64 [n, 2] of x and y."""
    points = np.asarray(shape.get("points", []), np.float64).reshape(-1, 2)
    kind = shape.get("shape_type", "polygon")
    if kind == "rectangle" and len(points) == 2:
        (left, top), (right, bottom) = points.min(0), points.max(0)
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if kind == "circle" and len(points) == 2:
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        return points[0] + np.linalg.norm(points[1] - points[0]) * np.stack([np.cos(angle), np.sin(angle)], 1)
    if kind == "polygon" and len(points) >= 3:
        return points
    raise InputError(
        f"A shape of {file} encloses no pixels: {kind} of {len(points)} points, label {shape.get('label')!r}.",
        remedy="draw a polygon, rectangle or circle, or remove the shape",
    )
