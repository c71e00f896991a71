"""Training items a second on one core: MoCo's two views and DeiT's view, as made now and as torchvision makes them.

    python benchmarks/training/loader.py FOLDER_OF_PHOTOGRAPHS [--images 32] [--rounds 5]

Both ways make whole items (decoding, views, superpixels), in turn and in one process; the time is that of the calling
thread. torchvision's way is that of the reference release: Pillow decodes, torchvision and timm draw and compute.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import v2

from cast_sdk.images import images_in
from cast_sdk.spec import IMAGENET_MEAN
from cast_sdk.superpixels import superpixels_for
from cast_sdk.training.data import transforms
from cast_sdk.training.data.dataset import Images, LabelledViews
from cast_sdk.training.data.sources import ImageSource
from cast_sdk.training.data.views import TwoViews
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.engine.recipe.settings import Augment, Moco


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


def deit_view(augment: Augment) -> Callable[[torch.Tensor], torch.Tensor]:
    """The reference's view for supervised training before normalisation, on a uint8 tensor [3, H, W]."""
    mode = v2.InterpolationMode(augment.interpolation)
    fill = tuple(round(255 * value) for value in IMAGENET_MEAN)
    rand_augment = rand_augment_transform(augment.rand_augment, {"img_mean": fill, "interpolation": 3})
    for op in rand_augment.ops:
        if op.name.startswith("Posterize"):
            op.aug_fn = posterize
    return v2.Compose(
        [
            v2.RandomResizedCrop(augment.image_size, scale=augment.scale, interpolation=mode, antialias=True),
            v2.RandomHorizontalFlip(augment.flip),
            v2.ToPILImage(),
            v2.Lambda(rand_augment),
            v2.PILToTensor(),
        ]
    )


def posterize(image: Any, bits: int, **_: Any) -> Any:
    """timm may ask for 0 bits, which new versions of Pillow refuse."""
    return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Run with torch's, NumPy's and Python's random states set from `numbers`, and put them back afterwards."""
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 (timm draws from them)
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        random.setstate(state[2])


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
    view_of, erase = deit_view(deit.augment), RandomErasing(deit.augment.erase, mode="pixel", max_count=1, device="cpu")

    def opened(index: int) -> Any:
        with Image.open(io.BytesIO(source.read(index))) as image:
            return image.convert("RGB")

    def two_before(index: int) -> None:
        image = opened(index)
        with seeded(0, 0, index):
            pixels = [np.array(view(image)) for view in views]
        for view in pixels:
            superpixels_for(view, two.settings)

    def one_before(index: int) -> None:
        image = torch.from_numpy(np.array(opened(index))).permute(2, 0, 1)
        with seeded(0, 0, index):
            erased = erase(transforms.normalise(view_of(image)[None])[0])
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
