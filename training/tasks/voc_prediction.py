"""How PASCAL VOC images are tested: prepared as the published programs do, predicted one by one, scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cast_sdk.models import model_spec
from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD, SuperpixelSettings
from cast_sdk.superpixels import seeds_count, superpixels_for
from cast_sdk.system.files import atomic_write
from cast_sdk.training.data.dense.base import DenseSplit
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.progress import progress
from cast_sdk.training.metrics import scores_file
from cast_sdk.training.metrics.semantic import ConfusionMatrix, together

SCORES, PREDICTED = Path("scores.json"), Path("results", "val")  # in the folder of an evaluation
LONG_SIDE = 512  # of an image at test time
MEAN, STD = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)

Pixels = npt.NDArray[np.uint8]


def voc_superpixels() -> SuperpixelSettings:
    """1,024 superpixels, 5 bins, 15 iterations."""
    return model_spec("spml_cast_small").superpixels


@dataclass(frozen=True)
class Prepared:
    """A photograph as the test programs see it: longer side 512, superpixels of the native size."""

    image: Tensor  # float32 [1,3,h,w], normalised
    superpixels: Tensor  # int32 [1,h,w]
    count: int  # S

    def nearest(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A native-size map at this size."""
        return nearest_resize(values, (self.image.shape[2], self.image.shape[3]))


def prepare(image: Pixels, settings: SuperpixelSettings) -> Prepared:
    """SEEDS on the native image, then image (bilinear) and labels (nearest) to longer side 512."""
    height, width = image.shape[:2]
    ratio = min(LONG_SIDE / height, LONG_SIDE / width)
    size = int(height * ratio), int(width * ratio)
    labels = nearest_resize(superpixels_for(image, settings), size)
    pixels = cv2.resize(image.astype(np.float32) / 255, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    tensor = torch.from_numpy((pixels - MEAN) / STD).permute(2, 0, 1)[None]
    return Prepared(tensor, torch.from_numpy(labels)[None], seeds_count(height, width, settings.count))


def nearest_resize(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Nearest neighbour, to (height, width)."""
    return cast("npt.NDArray[Any]", cv2.resize(values, (size[1], size[0]), interpolation=cv2.INTER_NEAREST))


def predict_split(
    predict: Callable[[Pixels], Pixels], split: DenseSplit, out: Path | None = None, world: World | None = None
) -> ConfusionMatrix:
    """Run `predict` on every image, write the class maps, add up the confusion matrix.

    The images are shared among the processes; the result is the same on every process.
    """
    world = world or World()
    confusion = ConfusionMatrix(len(split.class_names))
    folders = {name: out / PREDICTED / name for name in ("semantic_gray", "semantic_color")} if out else {}
    if out:
        scores_file.mark(out / PREDICTED)
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for index in progress(range(len(split))[world.rank :: world.size], "predicting"):
        pair = split.pairs[index]
        image, truth = split.read(index)
        classes = predict(image)
        confusion.update(classes, truth)
        for name, folder in folders.items():
            picture = Image.fromarray(classes)
            if name == "semantic_color":
                picture.putpalette([value for colour in split.palette for value in colour])
            with atomic_write(folder / f"{pair.name}.png") as temporary:
                picture.save(temporary, format="PNG")
    return together(confusion, world)


def report(confusion: ConfusionMatrix, split: DenseSplit, out: Path) -> None:
    """Write OUT/scores.json and print the mean over all classes, absent ones counted as 0."""
    mean = round(100 * confusion.mean_iou("zero"), 2)
    record = {**confusion.to_dict(), "mean_iou": mean}
    record["iou"] = dict(zip(split.class_names, record["iou"], strict=True))
    scores_file.write(out / SCORES, record)
    print(f"mean_iou {mean}, pixel_accuracy {record['pixel_accuracy']} over {confusion.images} images")
