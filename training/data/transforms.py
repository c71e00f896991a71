"""From an encoded image to what a model takes: an augmented image and the superpixels of that very view.

The order is the reference's. `source: crop`: geometry, flip, colour -> superpixels on the uint8 view -> normalisation
(done later, on the batch). `source: denormalised` (DeiT): the view is normalised, random erasing follows, and the
superpixels are computed on the de-normalised result cast to uint8, so they see the erased rectangle, values outside
0..255 wrap around, and many codes come out one too low.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD
from cast_sdk.training.engine.recipe import Augment

Pixels = npt.NDArray[np.uint8]


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


Statistics = tuple[float, float, float]


def normalise(images: Tensor, mean: Statistics = IMAGENET_MEAN, std: Statistics = IMAGENET_STD) -> Tensor:
    """uint8 [N,3,H,W] -> float32 with these statistics; float input passes through (it is normalised already)."""
    if images.is_floating_point():
        return images
    # Without waiting for the device, as torch.tensor(..., device=...) does.
    shift, scale = (
        torch.tensor(values).view(1, 3, 1, 1).to(images.device, non_blocking=True) for values in (mean, std)
    )
    return images.float().div_(255).sub_(shift).div_(scale)


def denormalised_uint8(image: Tensor, mean: Statistics = IMAGENET_MEAN, std: Statistics = IMAGENET_STD) -> Pixels:
    """DeiT's way back from a normalised float [3,H,W] to uint8 [H,W,3]: float64, truncation, wrap-around."""
    pixels = image.permute(1, 2, 0).double().numpy() * np.array(std) + np.array(mean)
    return np.ascontiguousarray((pixels * 255).astype(np.int64).astype(np.uint8))


@functools.cache
def round_trip_codes(mean: Statistics = IMAGENET_MEAN, std: Statistics = IMAGENET_STD) -> Pixels:
    """DeiT's way there and back for each code of each channel: uint8 [256, 3]."""
    codes = torch.arange(256, dtype=torch.uint8).expand(3, 1, -1)
    return denormalised_uint8(normalise(codes[None])[0], mean, std)[0]


def denormalised_view(view: Tensor, image: Tensor, changed: Tensor | None, mean: Statistics, std: Statistics) -> Pixels:
    """`denormalised_uint8` of `image`, most of it from a table.

    Args:
        view: uint8 [3,H,W]; normalised with ImageNet's statistics it gives `image` wherever nothing was erased.
        image: float32 [3,H,W].
        changed: `image` before erasing; None where nothing can have been erased.
    """
    pixels = cv2.LUT(np.ascontiguousarray(view.permute(1, 2, 0).numpy()), round_trip_codes(mean, std)[None])
    if changed is not None:
        different = (image != changed).any(0).numpy()
        rows, columns = different.any(1).nonzero()[0], different.any(0).nonzero()[0]
        if len(rows):
            area = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            pixels[area] = denormalised_uint8(image[:, area[0], area[1]], mean, std)
    return cast("Pixels", pixels)


def train_geometry(config: Augment) -> Callable[[Any], Any]:
    """The random part of supervised and probe training on a uint8 tensor [3,H,W] or a PIL image."""
    from torchvision.transforms import v2

    mode = v2.InterpolationMode(config.interpolation)
    steps: list[Any] = [
        v2.RandomResizedCrop(config.image_size, scale=config.scale, interpolation=mode, antialias=True),
        v2.RandomHorizontalFlip(config.flip),
    ]
    if config.rand_augment:
        from timm.data.auto_augment import rand_augment_transform

        fill = tuple(round(255 * value) for value in IMAGENET_MEAN)
        options = {
            "translate_const": int(config.image_size * 0.45),
            "img_mean": fill,
            "interpolation": 3 if config.interpolation == "bicubic" else 2,
        }
        augment = rand_augment_transform(config.rand_augment, options)
        for op in augment.ops:
            if op.name.startswith("Posterize"):
                op.aug_fn = posterize
        steps += [v2.ToPILImage(), v2.Lambda(augment)]
    return v2.Compose([*steps, v2.PILToTensor()] if config.rand_augment else steps)


def posterize(image: Any, bits: int, **_: Any) -> Any:
    """Keep `bits` of each channel. timm may ask for 0, which means black and which new versions of Pillow refuse."""
    from PIL import Image, ImageOps

    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)


def eval_geometry(config: Augment) -> Callable[[Any], Any]:
    """Short side to `eval_resize` and a centre crop, or the whole image stretched to the model's size."""
    from torchvision.transforms import v2

    mode = v2.InterpolationMode(config.interpolation)
    side = config.image_size
    if config.eval_resize == 0:
        return v2.Resize((side, side), interpolation=mode, antialias=True)
    return v2.Compose([v2.Resize(config.eval_resize, interpolation=mode, antialias=True), v2.CenterCrop(side)])


def erasing(config: Augment) -> Callable[[Tensor], Tensor] | None:
    """timm's random erasing with per-pixel noise, for normalised images."""
    if not config.erase:
        return None
    from timm.data.random_erasing import RandomErasing

    return RandomErasing(config.erase, mode="pixel", max_count=1, device="cpu")
