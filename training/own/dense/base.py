"""A person's images with masks as a split that the segmentation program reads: what all layouts share.

Which pixels belong to no class: value 255 of an index PNG; with polygons the pixels outside of all of them are the
class "background", or do not count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.training.data.dataset import OnBadImage
from cast_sdk.training.data.dense.base import IGNORE, DenseSplit, Pair, Pixels, read_rgb
from cast_sdk.training.own.classes.labelled import is_visible

BACKGROUND = "background"
FARTHEST = 1e6  # pixels; OpenCV draws in 16ths of them, in 32 bits
Unlabelled = Literal["background", "ignore"]
Drawn = Callable[[tuple[int, int]], Pixels]  # (height, width) of the image -> class map


@dataclass(frozen=True)
class Masked:
    """Images with masks.

    Attributes:
        names: of the images, relative to the data.
        images: their files.
        masks: of each image, a function that draws its class map.
        class_names: of classes 0..n-1.
        palette: RGB of each class; empty: none of its own.
        split: 0 train, 1 val of each image; None where the data has no split.
        kind: the layout, for people.
        notes: what was left out or looks odd.
        marks: what stands for each image's mask in a fingerprint.
    """

    names: list[str]
    images: list[Path]
    masks: Sequence[Drawn]
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    split: npt.NDArray[np.int8] | None = None
    kind: str = ""
    notes: list[str] = field(default_factory=list)
    marks: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def only(self, chosen: npt.NDArray[np.integer]) -> Masked:
        """Some of the images; classes stay."""
        return dataclasses.replace(
            self,
            names=[self.names[at] for at in chosen],
            images=[self.images[at] for at in chosen],
            masks=[self.masks[at] for at in chosen],
            marks=[self.marks[at] for at in chosen],
            split=None if self.split is None else self.split[chosen],
            notes=list(self.notes),
        )


@dataclass
class OwnSplit(DenseSplit):
    """A split whose class maps are drawn by functions, and whose images are read as the runtime reads them."""

    drawn: Sequence[Drawn] = ()

    def _read(self, pair: Pair) -> tuple[Pixels, Pixels]:
        image = read_rgb(pair.image)
        number = int(pair.label.name)  # place of its mask, see `split_of`
        label = self.drawn[number]((image.shape[0], image.shape[1]))
        if label.shape != image.shape[:2]:
            raise InputError(
                f"The mask of {pair.image} has another size than its image.",
                found=f"{list(label.shape)} for an image of {list(image.shape[:2])}",
                remedy="make the mask again at the image's size, or run with --on-bad-image skip",
            )
        return image, label


def split_of(masked: Masked, chosen: npt.NDArray[np.integer], on_bad: OnBadImage = "error") -> OwnSplit:
    """Some of the images as the segmentation program takes them."""
    pairs = [Pair(masked.images[at].stem, masked.images[at], Path(str(at))) for at in chosen]
    return OwnSplit(pairs, masked.class_names, masked.palette, on_bad=on_bad, drawn=masked.masks)


def polygon_map(
    size: tuple[int, int], shapes: Sequence[tuple[int, Sequence[npt.NDArray[np.floating]]]], start: int
) -> Pixels:
    """Polygons drawn one over another: uint8 [h, w].

    Args:
        size: (height, width).
        shapes: (class, its outlines float [n, 2] of x and y), the first one below.
        start: value of the pixels outside of all of them.

    Raises:
        InputError: for corners that are no places near the image.
    """
    import cv2

    drawn = np.full(size, start, np.uint8)
    for value, outlines in shapes:
        for outline in outlines:
            if not (np.abs(outline) < FARTHEST).all():
                raise InputError(
                    "A polygon has corners that are no places in the image.",
                    found=f"{outline[~(np.abs(outline) < FARTHEST)][0]:g} in an image of {size[1]} x {size[0]}",
                    remedy="draw it again, or remove it",
                )
        # Pixel centres lie at whole numbers in OpenCV and at halves in annotations.
        points = [np.round((outline - 0.5) * 16).astype(np.int32) for outline in outlines]
        cv2.fillPoly(drawn, points, int(value), shift=4)
    return drawn


def json_files(files: Iterable[Path], folder: Path) -> list[Path]:
    """Those that are not hidden, sorted."""
    return sorted(path for path in files if is_visible(path, folder))


def check_entries(file: Path, content: dict[str, Any], name: str, keys: Sequence[str]) -> None:
    """Refuse a list of an annotation file whose entries are not objects with these keys.

    Raises:
        InputError: naming the file, the list and the key.
    """
    entries = content[name]
    whole = isinstance(entries, list) and all(isinstance(one, dict) and set(keys) <= set(one) for one in entries)
    if not whole:
        raise InputError(
            f"{name} of {file} is not a list of objects with {' and '.join(keys)}.",
            remedy="write the file again with the program that made it, or remove it",
        )


def background_first(names: Sequence[str], unlabelled: Unlabelled) -> tuple[tuple[str, ...], int]:
    """Class names with "background" in front where it is a class, and the value of pixels outside of all shapes."""
    if unlabelled == "ignore":
        return tuple(names), IGNORE
    if BACKGROUND in names:
        return tuple(names), list(names).index(BACKGROUND)
    return (BACKGROUND, *names), 0
