"""Pascal Context, 59 classes and background (class 0), on the images of VOC2010.

VOC2010/{JPEGImages, SegmentationClassContext/*.png, ImageSets/SegmentationContext/{train,val}.txt}. The label PNGs and
lists are made from the annotation files by `prepare_data.py pcontext`.
"""

from __future__ import annotations

from pathlib import Path

from cast_sdk.training.data.dense.base import DenseSplit, find_home, paired
from cast_sdk.training.data.dense.voc import colour_map, read_list

CLASSES = tuple(
    """background, aeroplane, bag, bed, bedclothes, bench, bicycle, bird, boat, book, bottle, building, bus, cabinet,
    car, cat, ceiling, chair, cloth, computer, cow, cup, curtain, dog, door, fence, floor, flower, food, grass, ground,
    horse, keyboard, light, motorbike, mountain, mouse, person, plate, platform, pottedplant, road, rock, sheep,
    shelves, sidewalk, sign, sky, snow, sofa, table, track, train, tree, truck, tvmonitor, wall, water, window,
    wood""".replace("\n    ", " ").split(", ")
)
HOMES = ["VOC2010", "VOCdevkit/VOC2010", "pcontext/VOCdevkit/VOC2010"]


def pcontext(root: Path, split: str) -> DenseSplit:
    """Images and class maps of "train" (4,998) or "val" (5,105).

    Raises:
        RecipeError: for another layout or missing label files.
    """
    remedy = "python training/prepare_data.py pcontext --data ROOT makes them from VOC2010 and the annotation files"
    needs = ["JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext"]
    home = find_home(root, HOMES, needs, "Pascal Context", remedy)
    names = [line[0] for line in read_list(home / "ImageSets" / "SegmentationContext" / f"{split}.txt")]
    images = [home / "JPEGImages" / f"{name}.jpg" for name in names]
    labels = [home / "SegmentationClassContext" / f"{name}.png" for name in names]
    return DenseSplit(paired(images, labels, f"Pascal Context {split}"), CLASSES, colour_map(len(CLASSES)))
