"""PASCAL VOC 2012 segmentation with the SBD labels: 21 classes, 255 = void.

VOCdevkit/{VOC2012/JPEGImages, VOC2012/segcls/*.png, sbd/dataset/clsimg/*.png} and the lists `lists/train+.txt`
(10,582 lines) and `lists/val.txt` (1,449) of "image label" paths, made by `prepare_data.py voc`. Lists with a third
column, as the reference's, are read too.
"""

from __future__ import annotations

from pathlib import Path

from cast_sdk.errors import RecipeError
from cast_sdk.system.files import read_text
from cast_sdk.training.data.dense.base import DenseSplit, find_home, paired

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
SPLITS = {"train": "train+", "train+": "train+", "val": "val"}


def voc(root: Path, split: str) -> DenseSplit:
    """Images and class maps of "train" (the list train+) or "val".

    Raises:
        RecipeError: for another layout, an unknown split or missing files.
    """
    if split not in SPLITS:
        raise RecipeError(f"VOC has no split {split!r}.", remedy="--split train (the list train+) or val")
    remedy = "python training/prepare_data.py voc --data VOCdevkit makes labels and lists from VOC2012 and SBD"
    home = find_home(root, ["VOCdevkit"], ["VOC2012/JPEGImages", "lists"], "The VOC folder", remedy)
    lines = read_list(home / "lists" / f"{SPLITS[split]}.txt")
    if any(len(line) < 2 for line in lines):
        raise RecipeError(f"{SPLITS[split]}.txt has lines without an image and its label.", remedy=remedy)
    images, labels = [home / line[0] for line in lines], [home / line[1] for line in lines]
    return DenseSplit(paired(images, labels, f"VOC {split}"), CLASSES, colour_map(len(CLASSES)))


def read_list(path: Path) -> list[list[str]]:
    """Non-empty lines of a list file, split at white space.

    Raises:
        RecipeError: when it is missing.
    """
    if not path.is_file():
        raise RecipeError(f"The list file {path} is missing.", remedy="run prepare_data.py first")
    return [line.split() for line in read_text(path).splitlines() if line.strip()]


def colour_map(count: int) -> tuple[tuple[int, int, int], ...]:
    """VOC's RGB colours of classes 0..count-1: the bits of the index, three at a time, from the most significant."""

    def channel(index: int, offset: int) -> int:
        return sum(((index >> (3 * place + offset)) & 1) << (7 - place) for place in range(8))

    return tuple((channel(index, 0), channel(index, 1), channel(index, 2)) for index in range(count))
