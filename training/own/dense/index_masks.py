"""Masks as PNG files with one index a pixel, with a palette or without.

Folders: `images/` and `masks/` (other usual names too), with or without `train/` and `val/` inside or around them, or
`train/` beside `trainannot/`. A mask has the name of its image. `classes.txt` (a name a line, for values 0, 1, ...) is
optional.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.system.files import read_text
from cast_sdk.system.processor import available_cores
from cast_sdk.training.data.dense.base import IGNORE, Pixels, read_indices
from cast_sdk.training.own.classes.labelled import TRAIN, VAL, VALIDATION, folders_in, visible_images
from cast_sdk.training.own.dense.base import Masked
from cast_sdk.training.own.splitting import TEST, digest, part_named, settle

IMAGES = ("images", "image", "imgs", "img", "jpegimages")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annots", "segmentationclass", "gt")
_REMEDY = "give each image a PNG of its name with one index a pixel; 255 does not count"


def find(data: Path) -> Masked | None:
    """Images and masks of this layout; None where there is none.

    Raises:
        InputError: for images without a mask, masks of colours, or values without a name.
    """
    folders = _folders(data)
    if not folders:
        return None
    images, masks, parts, notes = [], [], [], []
    for image_folder, mask_folder, part in folders:
        files = {path.relative_to(mask_folder).with_suffix(""): path for path in visible_images(mask_folder)}
        found = visible_images(image_folder)
        lacking = [path for path in found if path.relative_to(image_folder).with_suffix("") not in files]
        if lacking and len(lacking) == len(found):
            raise InputError(
                f"None of the {len(found)} images of {image_folder} has a mask of its name in {mask_folder}.",
                found=f"{lacking[0].name} and {next(iter(files.values())).name}" if files else "no masks",
                remedy=_REMEDY,
            )
        if lacking:
            notes.append(f"images of {image_folder.name}/ without a mask are left out ({len(lacking)}): "
                         f"{', '.join(path.name for path in lacking[:4])}")  # fmt: skip
        for path in found:
            key = path.relative_to(image_folder).with_suffix("")
            if key in files:
                images.append(path)
                masks.append(files[key])
                parts.append(part if part is not None or len(key.parts) < 2 else part_named(key.parts[0]))
    if not images:
        return None
    used, split, told = settle(parts)
    images, masks = [images[at] for at in used], [masks[at] for at in used]
    values, palette, marks = _survey(masks)
    if len(values) == 2 and IGNORE in values and not (data / "classes.txt").is_file():
        raise InputError(
            f"The masks of {data} have the values {values[0]} and {IGNORE} only, and {IGNORE} does not count.",
            remedy=f"save the class that is {IGNORE} as another value, such as {values[0] + 1}",
        )
    values = [value for value in values if value != IGNORE]
    names, table = _classes(data, values)
    colours = tuple(palette[value] for value in values) if palette and all(v in palette for v in values) else ()
    return Masked(
        [str(path.relative_to(data)) for path in images],
        images,
        [functools.partial(_drawn, path, table) for path in masks],
        names,
        colours,
        split,
        "index PNG",
        [*notes, *told],
        marks,
    )


def _folders(data: Path) -> list[tuple[Path, Path, int | None]]:
    """(images, masks, part) of the data; the part is None where the folders do not tell."""

    def pair(folder: Path, part: int | None) -> list[tuple[Path, Path, int | None]]:
        inside = {path.name.lower(): path for path in folders_in(folder)}
        image = [inside[name] for name in IMAGES if name in inside]
        mask = [inside[name] for name in MASKS if name in inside]
        return [(image[0], mask[0], part)] if image and mask else []

    here = {path.name.lower(): path for path in folders_in(data)}
    found = pair(data, None)
    if found:
        return found
    for name, part in (("train", TRAIN), *((name, VAL) for name in VALIDATION), ("test", TEST)):
        if name not in here:
            continue
        if f"{name}annot" in here:  # SegNet's CamVid
            found.append((here[name], here[f"{name}annot"], part))
        else:
            found += pair(here[name], part)
    return found


def _survey(masks: list[Path]) -> tuple[list[int], dict[int, tuple[int, int, int]], list[bytes]]:
    """Values of all masks, colours of the first mask's palette, and a mark of each file."""
    from PIL import Image

    def one(path: Path) -> tuple[npt.NDArray[np.integer], bytes]:
        return np.unique(read_indices(path)), digest(path.read_bytes())

    with ThreadPoolExecutor(available_cores()) as pool:
        seen = list(pool.map(one, masks))
    values = sorted(set(np.concatenate([found for found, _ in seen]).tolist()))
    with Image.open(masks[0]) as first:
        flat = first.getpalette() if first.mode == "P" else None
    colours = {at: (flat[3 * at], flat[3 * at + 1], flat[3 * at + 2]) for at in range(len(flat) // 3)} if flat else {}
    return [int(value) for value in values], colours, [mark for _, mark in seen]


def _classes(data: Path, values: list[int]) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names of the classes, and the class of each value."""
    file = data / "classes.txt"
    if not file.is_file():
        return tuple(f"class {value}" for value in values), {value: at for at, value in enumerate(values)}
    names = [line.strip().rpartition("\t")[2] for line in read_text(file).splitlines() if line.strip()]
    nameless = [value for value in values if not 0 <= value < len(names)]
    if nameless:
        raise InputError(
            f"The masks have values without a name in {file}: {', '.join(map(str, nameless[:6]))}.",
            found=f"{len(names)} names, for values 0 to {len(names) - 1}",
            remedy="add the names; pixels that do not count have the value 255",
        )
    return tuple(names), {value: value for value in range(len(names))}


def _drawn(path: Path, table: dict[int, int], size: tuple[int, int]) -> Pixels:
    raw = read_indices(path)
    look_up = np.full(max(int(raw.max(initial=0)), max(table), IGNORE) + 1, IGNORE, np.uint8)
    look_up[list(table)] = list(table.values())
    return np.asarray(look_up[raw], np.uint8)
