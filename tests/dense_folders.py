"""Small folders in the official layouts of the dense data sets, made from real images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image


def camvid_folder(data: Path, root: Path, count: int = 4, size: tuple[int, int] = (160, 120)) -> Path:
    """CamVid with few, small images."""
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        files = sorted((data / "camvid" / split).glob("*.jpg"))
        for file in files[:: max(1, len(files) // count)][:count]:
            label = data / "camvid" / f"{split}annot" / f"{file.stem}.png"
            Image.open(file).resize(size).save(root / split / file.name)
            Image.open(label).resize(size, Image.Resampling.NEAREST).save(root / f"{split}annot" / label.name)
    return root


def coco_pairs(data: Path, count: int) -> list[tuple[Path, Path]]:
    """Photographs and semantic masks of coco128."""
    home = data / "coco128"
    masks = sorted((home / "masks" / "train2017").glob("*.png"))[:count]
    return [(home / "images" / "train2017" / f"{mask.stem}.jpg", mask) for mask in masks]


def class_map(mask: Path, classes: int) -> np.ndarray:
    """A coco128 mask as classes 0..classes-1 of another data set (the content is real, the names are not)."""
    values = np.array(Image.open(mask))
    return (values % classes).astype(np.uint8)


def ade_folder(data: Path, root: Path, count: int = 3) -> Path:
    """ADEChallengeData2016: raw 0 is void, classes from 1."""
    for split in ("training", "validation"):
        images, labels = root / "images" / split, root / "annotations" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number, (image, mask) in enumerate(coco_pairs(data, count)):
            shutil.copy(image, images / f"ADE_{split}_{number:08d}.jpg")
            Image.fromarray(class_map(mask, 151)).save(labels / f"ADE_{split}_{number:08d}.png")
    return root


def voc_folder(data: Path, root: Path, count: int = 4) -> Path:
    """VOCdevkit as downloaded: VOC2012 with palette labels for half of the images, SBD .mat files for all."""
    from scipy.io import savemat

    home = root / "VOC2012"
    sets, sbd = home / "ImageSets" / "Segmentation", root / "sbd" / "dataset"
    for folder in (home / "JPEGImages", home / "SegmentationClass", sets, sbd / "cls"):
        folder.mkdir(parents=True)
    names = []
    for number, (image, mask) in enumerate(coco_pairs(data, count)):
        name = f"2008_{number:06d}"
        names.append(name)
        shutil.copy(image, home / "JPEGImages" / f"{name}.jpg")
        classes = class_map(mask, 21)
        classes[:2] = 255
        if number % 2 == 0:
            indexed = Image.fromarray(classes)
            indexed.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
            indexed.save(home / "SegmentationClass" / f"{name}.png")
        classes[:2] = 0
        savemat(sbd / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": classes}})
    (sets / "train.txt").write_text(f"{names[0]}\n")
    (sets / "val.txt").write_text(f"{names[2]}\n")
    (sbd / "train.txt").write_text("\n".join([names[0], names[1]]) + "\n")
    (sbd / "val.txt").write_text("\n".join([names[2], names[3]]) + "\n")
    return root


def parts_folder(data: Path, root: Path, count: int = 3) -> Path:
    """PartImageNet: two objects with two parts each; polygons, run lengths, and one annotation that is broken."""
    import json

    from pycocotools import mask as coco

    names = ("Bird Head", "Bird Body", "Car Body", "Car Tier")
    categories = [{"id": 5 + i, "name": name, "supercategory": name.split()[0]} for i, name in enumerate(names)]
    images, annotations = [], []
    for number, (image, mask) in enumerate(coco_pairs(data, count)):
        name = f"n0150000{number}_12.JPEG"
        folder = root / "images" / "val" / name[:9]
        folder.mkdir(parents=True)
        shutil.copy(image, folder / name)
        classes = class_map(mask, 5)
        height, width = classes.shape
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for index in (1, 2):
            packed = coco.encode(np.asfortranarray((classes == index).astype(np.uint8)))
            packed["counts"] = packed["counts"].decode()
            annotations.append(
                {"image_id": number, "category_id": 4 + index + 2 * (number % 2), "segmentation": packed}
            )
        box = [[4, 4, width // 3, 4, width // 3, height // 3, 4, height // 3]]
        annotations.append({"image_id": number, "category_id": 5, "segmentation": box})
        annotations.append({"image_id": number, "category_id": 6, "segmentation": [[1, 2]]})
    for number, annotation in enumerate(annotations):
        annotation["id"] = number
    (root / "annotations").mkdir()
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "annotations" / "val.json").write_text(text)
    return root
