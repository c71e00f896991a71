"""Small data of a person's own: pictures of blobs in class folders, and of shapes with masks in three layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ((150, 40, 40), (40, 150, 40), (40, 40, 150), (120, 120, 20))
NAMES = ("background", "box", "post")


def blob(label: int, number: int, size: int = 48) -> np.ndarray:
    """uint8 [size,size,3]: coarse noise around a colour that tells the class."""
    rng = np.random.default_rng([label, number])
    coarse = np.kron(rng.integers(0, 90, (6, 6, 1)), np.ones((size // 6, size // 6, 3)))
    return np.clip(coarse + COLOURS[label % 4] + rng.normal(0, 6, (size, size, 3)), 0, 255).astype(np.uint8)


def write_image(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def write_classes(root: Path, counts: dict[str, int]) -> Path:
    """A folder for each class with so many JPEG files."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_image(root / name / f"photo {number:02d}.jpg", blob(label, number))
    return root


def scene(number: int, size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray, list[tuple[int, list[int]]]]:
    """Image, class map, and (class, [left, top, right, bottom]) of its shapes, the larger one first."""
    rng = np.random.default_rng(number)
    height, width = size
    label = np.zeros(size, np.uint8)
    shapes = []
    for kind, (wide, high) in ((1, (48, 40)), (2, (16, 64))):
        left, top = int(rng.integers(0, width - wide)), int(rng.integers(0, height - high))
        label[top : top + high, left : left + wide] = kind
        shapes.append((kind, [left, top, left + wide, top + high]))
    colours = np.array([(90, 120, 90), (200, 60, 50), (60, 70, 210)], np.float32)
    image = np.clip(colours[label] + rng.normal(0, 8, (*size, 3)), 0, 255).astype(np.uint8)
    return image, label, shapes


def corners(box: list[int]) -> list[list[int]]:
    left, top, right, bottom = box
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def write_index(root: Path, count: int, palette: bool = True) -> Path:
    for number in range(count):
        image, label, _ = scene(number)
        write_image(root / "images" / f"{number}.png", image)
        mask = Image.fromarray(label)
        if palette:
            mask.putpalette([10, 20, 30, 200, 60, 50, 60, 70, 210])
        (root / "masks").mkdir(exist_ok=True)
        mask.save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return root


def write_coco(root: Path, count: int, kind: str = "polygon") -> Path:
    from cast_sdk.runtime.output.rle import encode_labels

    images, annotations = [], []
    for number in range(count):
        image, label, shapes = scene(number)
        write_image(root / "images" / f"{number}.png", image)
        images.append({"id": number + 1, "file_name": f"{number}.png", "height": 96, "width": 128})
        for category, box in reversed(shapes):  # the order in the file is not the order of drawing
            if kind == "polygon":
                mask: object = [np.ravel(corners(box)).tolist()]
            else:
                mask = encode_labels((label == category).astype(np.int32), 2)[1]
                if kind == "compressed":
                    from pycocotools import mask as coco

                    mask = coco.frPyObjects(mask, 96, 128)
                    mask["counts"] = mask["counts"].decode()
            area = (box[2] - box[0]) * (box[3] - box[1])
            annotations.append(
                {"image_id": number + 1, "category_id": 10 * category, "area": area, "segmentation": mask}
            )
    categories = [{"id": 10 * number, "name": NAMES[number]} for number in (1, 2)]
    categories.append({"id": 77, "name": "never used"})
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "instances.json").write_text(text)
    return root


def write_labelme(root: Path, count: int) -> Path:
    for number in range(count):
        image, _, shapes = scene(number)
        write_image(root / f"{number}.png", image)
        drawn = [
            {"label": NAMES[kind], "points": corners(box), "shape_type": "polygon"}
            if number % 2
            else {"label": NAMES[kind], "points": [box[:2], box[2:]], "shape_type": "rectangle"}
            for kind, box in shapes
        ]
        (root / f"{number}.json").write_text(json.dumps({"shapes": drawn, "imagePath": f"{number}.png"}))
    return root
