"""Training items a second on one core: MoCo's two views and DeiT's view, as made now and as torchvision makes them.

    python benchmarks/loader.py FOLDER_OF_PHOTOGRAPHS [--images 32] [--rounds 5]

Both ways make whole items (decoding, views, superpixels), in turn and in one process; the time is that of the calling
thread. torchvision's way is that of the reference release: Pillow decodes, torchvision and timm draw and compute.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2

from cast_sdk.images import images_in
from cast_sdk.superpixels import superpixels_for
from cast_sdk.training.data import transforms
from cast_sdk.training.data.dataset import Images, LabelledViews
from cast_sdk.training.data.sources import ImageSource
from cast_sdk.training.data.views import TwoViews
from cast_sdk.training.engine.recipe import Augment, Moco, load_recipe


def torchvision_view(augment: Augment, moco: Moco, view: int) -> Callable[[Any], Any]:
    """The reference's view 0 or 1, from a PIL image to a PIL image."""

    def blur(image: Any) -> Any:
        low, high = moco.blur_radius
        return image.filter(ImageFilter.GaussianBlur(low + (high - low) * float(torch.rand(()))))

    mode = v2.InterpolationMode(augment.interpolation)
    return v2.Compose(
        [
            v2.RandomResizedCrop(augment.image_size, scale=augment.scale, interpolation=mode),
            v2.RandomApply([v2.ColorJitter(*moco.jitter)], moco.jitter_probability),
            v2.RandomGrayscale(moco.grey),
            v2.RandomApply([v2.Lambda(blur)], moco.blur[view]),
            v2.RandomSolarize(128, moco.solarise[view]),
            v2.RandomHorizontalFlip(augment.flip),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    files = [str(path) for path in images_in(arguments.folder, deep=True)[: arguments.images]]
    source = ImageSource(arguments.folder, "", [(file, -1, 0) for file in files], np.zeros(len(files), np.int64), files)
    images = Images(source)
    moco, deit = (load_recipe(name) for name in ("moco_in1k_cast_small", "deit_cast_small"))
    two, one = TwoViews(images, moco), LabelledViews(images, deit, train=True)
    views = [torchvision_view(moco.augment, moco.moco, view) for view in (0, 1)]

    def opened(index: int) -> Any:
        with Image.open(io.BytesIO(source.read(index))) as image:
            return image.convert("RGB")

    def two_before(index: int) -> None:
        image = opened(index)
        with transforms.seeded(0, 0, index):
            pixels = [np.array(view(image)) for view in views]
        for view in pixels:
            superpixels_for(view, two.settings)

    def one_before(index: int) -> None:
        image = torch.from_numpy(np.array(opened(index))).permute(2, 0, 1)
        with transforms.seeded(0, 0, index):
            view = transforms.normalise(one.geometry(image)[None])[0]
            erased = one.erase(view) if one.erase else view
        superpixels_for(transforms.denormalised_uint8(erased), one.settings)

    kinds: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
        "MoCo, two views": (two_before, lambda index: two[index, 0, index]),
        "DeiT, one view": (one_before, lambda index: one[index, 0, index]),
    }
    print("| items | before, ms | now, ms | now, items/s | times faster, median | minima |\n|---|---|---|---|---|---|")
    for name, ways in kinds.items():
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(arguments.rounds * len(files)):
            for way, taken in zip(ways, times, strict=True):
                start = time.thread_time()
                way(number % len(files))
                taken.append(1e3 * (time.thread_time() - start))
        # The least of an image's times is the one that other programs disturbed least.
        least = [np.array(taken).reshape(arguments.rounds, -1).min(0).mean() for taken in times]
        middle = [statistics.mean(np.median(np.array(taken).reshape(arguments.rounds, -1), 0)) for taken in times]
        print(
            f"| {name} | {least[0]:.1f} | {least[1]:.1f} | {1e3 / least[1]:.0f} "
            f"| {middle[0] / middle[1]:.2f} | {least[0] / least[1]:.2f} |"
        )


if __name__ == "__main__":
    main()
