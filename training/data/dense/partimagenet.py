"""PartImageNet (OOD split): objects, their parts and COCO annotations.

{annotations/{train,val,test}.json, images/{train,val,test}/<wnid>/<file>}; the first nine characters of a file name are
its wnid.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError, MissingDependencyError, RecipeError
from cast_sdk.system.files import read_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartImageNet:
    """One split.

    Attributes:
        root, split: where it is.
        images: COCO image records, in the order of the file.
        annotations: COCO annotation records by image id.
        objects: distinct supercategories in category order (11 in the full data set).
        parts: category names (40), such as "Quadruped Head".
        part_of: category id -> (object index, part index).
    """

    root: Path
    split: str
    images: list[dict[str, Any]]
    annotations: dict[int, list[dict[str, Any]]]
    objects: tuple[str, ...]
    parts: tuple[str, ...]
    part_of: dict[int, tuple[int, int]]

    @classmethod
    def open(cls, root: Path, split: str = "val") -> PartImageNet:
        """Read `annotations/<split>.json`.

        Raises:
            RecipeError: when it is missing or not COCO JSON with supercategories.
        """
        file = root / "annotations" / f"{split}.json"
        remedy = "unpack PartImageNet_OOD (github.com/tacju/partimagenet): annotations/ and images/"
        if not file.is_file():
            raise RecipeError(f"{root} is not the folder of PartImageNet: no {file}.", remedy=remedy)
        try:
            data = read_json(file)
            categories = data["categories"]
            objects = tuple(dict.fromkeys(category["supercategory"] for category in categories))
            part_of = {
                category["id"]: (objects.index(category["supercategory"]), index)
                for index, category in enumerate(categories)
            }
            by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in data["images"]}
            for annotation in data["annotations"]:
                by_image[annotation["image_id"]].append(annotation)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise RecipeError(
                f"{file} is no COCO JSON with supercategories.",
                found=f"{type(error).__name__} {error}",
                remedy=remedy,
            ) from error
        parts = tuple(category["name"] for category in categories)
        return cls(root, split, data["images"], by_image, objects, parts, part_of)

    def path(self, image: dict[str, Any]) -> Path:
        name = Path(image["file_name"]).name
        return self.root / "images" / self.split / name[:9] / name

    def parts_of(self, index: int) -> list[int]:
        """Part indices whose name contains the name of object `index`, as the evaluation chooses them."""
        return [number for number, name in enumerate(self.parts) if self.objects[index] in name]

    def truth(
        self, image: dict[str, Any], tolerate: bool = True
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Object and part maps uint8 [h, w] at the image's own size; background is the class after the last.

        Annotations overwrite each other in their order.

        Args:
            image: one of `images`.
            tolerate: leave annotations out that cannot be decoded, with a warning; otherwise raise.
        """
        shape = int(image["height"]), int(image["width"])
        objects = np.full(shape, len(self.objects), np.uint8)
        parts = np.full(shape, len(self.parts), np.uint8)
        for annotation in self.annotations[image["id"]]:
            try:
                mask = decode_mask(annotation["segmentation"], *shape)
                owner, part = self.part_of[annotation["category_id"]]
            except (InputError, KeyError) as error:
                if not tolerate:
                    raise
                log.warning("annotation %s of %s left out: %s", annotation.get("id"), image["file_name"], error)
                continue
            objects[mask], parts[mask] = owner, part
        return objects, parts


def decode_mask(segmentation: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Mask bool [h, w] of COCO polygons or run lengths.

    Raises:
        InputError: for anything else.
        MissingDependencyError: without pycocotools.
    """
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise MissingDependencyError(
            "pycocotools, which reads COCO masks, is missing.", found=str(error), remedy="pip install pycocotools"
        ) from error
    try:
        if isinstance(segmentation, list):
            encoded = coco.merge(coco.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            encoded = coco.frPyObjects(segmentation, height, width)
        else:
            encoded = segmentation
        mask = coco.decode(encoded)
    except Exception as error:  # pycocotools raises bare Exception, TypeError, ValueError and KeyError
        raise InputError("A COCO mask is neither polygons nor run lengths.", found=str(error)) from error
    if mask.shape != (height, width):
        raise InputError(f"A mask has another size ({mask.shape}) than its image ({(height, width)}).")
    return np.asarray(mask, bool)
