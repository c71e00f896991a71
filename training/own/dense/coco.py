"""Masks in a COCO JSON file: polygons and run lengths, both written forms."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.runtime.output import rle
from cast_sdk.system.files import read_json
from cast_sdk.training.data.dense.base import Pixels
from cast_sdk.training.own.dense.base import (
    Masked,
    Unlabelled,
    background_first,
    check_entries,
    json_files,
    polygon_map,
)
from cast_sdk.training.own.splitting import digest, part_named, settle

_ENTRIES = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id"), "categories": ("id", "name")}


def find(data: Path, unlabelled: Unlabelled) -> Masked | None:
    """Images and masks of COCO JSON files; None where there are none.

    Raises:
        InputError: for damaged files, images that are not found, or files that disagree about the classes.
    """
    files = [data] if data.is_file() else json_files((*data.glob("*.json"), *data.glob("annotations/*.json")), data)
    read = [(file, content) for file in files if (content := _content(file)) is not None]
    if not read:
        return None
    names, numbers = _categories(read)
    class_names, start = background_first(names, unlabelled)
    shift = len(class_names) - len(names)
    root = data.parent if data.is_file() else data
    found: list[tuple[Path, Any, int | None, bytes]] = []
    lacking: list[str] = []
    empty = lost = 0
    for file, content in read:
        by_image: dict[Any, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
        for image in content["images"]:
            annotations = by_image.get(image["id"], [])
            if not annotations:
                empty += 1
                continue
            path = _image(root, file, str(image["file_name"]))
            if path is None:
                lacking.append(str(image["file_name"]))
                continue
            mark = digest(json.dumps(annotations, sort_keys=True).encode())
            shapes = [(numbers[one["category_id"]] + shift, one.get("segmentation")) for one in annotations]
            part = part_named(file.stem) if len(read) > 1 else None
            found.append((path, functools.partial(_drawn, shapes, start), part, mark))
        listed = {image["id"] for image in content["images"]}
        lost += sum(len(annotations) for image, annotations in by_image.items() if image not in listed)
    if lacking:
        raise InputError(
            f"{len(lacking)} images of {read[0][0].name} are not there, first {lacking[0]}.",
            remedy=f"put them into {root} or {root / 'images'}",
        )
    notes = [f"images without annotations are left out ({empty})"] if empty else []
    if lost:
        notes.append(f"annotations of images that are not listed are left out ({lost})")
    used, split, told = settle([part for _, _, part, _ in found])
    found = [found[at] for at in used]
    return Masked(
        [str(path.relative_to(root)) if path.is_relative_to(root) else str(path) for path, *_ in found],
        [path for path, *_ in found],
        [drawn for _, drawn, *_ in found],
        class_names,
        (),
        split,
        "COCO JSON",
        [*notes, *told],
        [mark for *_, mark in found],
    )


def decode_counts(text: str | bytes) -> list[int]:
    """Run lengths of COCO's compressed form: six bits a character, from the third number on as differences."""
    data = text.encode() if isinstance(text, str) else text
    counts: list[int] = []
    at = 0
    while at < len(data):
        value = shift = 0
        more = True
        while more:
            if at >= len(data):
                raise InputError("A compressed COCO mask ends within a number.")
            code = data[at] - 48
            value |= (code & 0x1F) << shift
            more, shift, at = bool(code & 0x20), shift + 5, at + 1
            if not more and code & 0x10:
                value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


def mask_of(segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Mask bool [h, w] of polygons or run lengths.

    Raises:
        InputError: for anything else.
    """
    if segmentation is None or segmentation in ([], {}):
        raise InputError("A COCO annotation has no mask, a box at most.")
    try:
        if isinstance(segmentation, Mapping):
            counts, given = segmentation["counts"], tuple(segmentation.get("size", size))
            if given != size:
                raise InputError(
                    "A COCO mask has another size than its image.", found=f"{list(given)[:4]} for {list(size)}"
                )
            runs = counts if isinstance(counts, list) else decode_counts(counts)
            return rle.decode({"size": list(size), "counts": runs})
        outlines = [np.asarray(one, np.float64) for one in segmentation]
    except (KeyError, TypeError, ValueError, OverflowError):
        outlines = []
    if not outlines or any(one.ndim != 1 or len(one) < 6 or len(one) % 2 for one in outlines):
        raise InputError(
            "A COCO mask is neither polygons of three corners or more nor run lengths.", found=str(segmentation)[:80]
        )
    return polygon_map(size, [(1, [one.reshape(-1, 2) for one in outlines])], 0) > 0


def _drawn(shapes: list[tuple[int, Any]], start: int, size: tuple[int, int]) -> Pixels:
    drawn, least = np.full(size, start, np.uint8), np.full(size, size[0] * size[1], np.int64)
    for value, segmentation in shapes:
        mask = mask_of(segmentation, size)
        # Large things below small ones, as annotators mean them; what a file says of areas may be of another drawing.
        area = int(mask.sum())
        mask &= area <= least
        drawn[mask], least[mask] = value, area
    return drawn


def _content(file: Path) -> dict[str, Any] | None:
    """What a COCO file holds; None for other JSON."""
    content = read_json(file)
    if not isinstance(content, dict) or not set(_ENTRIES) <= set(content):
        return None
    for name, keys in _ENTRIES.items():
        check_entries(file, content, name, keys)
        for entry in content[name]:
            bad = next((key for key in keys if not isinstance(entry[key], (int, float, str))), None)
            if bad is not None:
                raise InputError(
                    f"{bad} of an entry of {name} in {file} is neither a number nor a name.",
                    found=repr(entry[bad])[:80],
                    remedy="write the file again with the program that made it",
                )
    for name in ("images", "categories"):
        ids = Counter(entry["id"] for entry in content[name])
        if twice := [str(one) for one, count in ids.items() if count > 1]:
            raise InputError(
                f"{file} has several {name} of one id: {', '.join(twice[:6])}.", remedy="give each an id of its own"
            )
    return content


def _categories(read: Sequence[tuple[Path, dict[str, Any]]]) -> tuple[list[str], dict[int, int]]:
    """Class names by category id, and the class of each id."""
    tables = [{one["id"]: str(one["name"]) for one in content["categories"]} for _, content in read]
    if any(table != tables[0] for table in tables):
        raise InputError(
            f"{read[0][0].name} and {read[-1][0].name} have different categories.",
            remedy="write both with the same ids and names",
        )
    used = {one["category_id"] for _, content in read for one in content["annotations"]}
    unknown = sorted(map(str, used - set(tables[0])))
    if unknown:
        raise InputError(f"{read[0][0].name} has annotations of unknown categories: {', '.join(unknown[:6])}.")
    ids = sorted((one for one in tables[0] if one in used), key=lambda one: (isinstance(one, str), one))
    names = list(dict.fromkeys(tables[0][one] for one in ids))  # two ids of one name are one class
    return names, {one: names.index(tables[0][one]) for one in ids}


def _image(root: Path, file: Path, name: str) -> Path | None:
    stem = file.stem.removeprefix("instances_")
    for folder in (root, root / "images", root / stem, root / "images" / stem, file.parent):
        if (folder / name).is_file():
            return folder / name
    return None
