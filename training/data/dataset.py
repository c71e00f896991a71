"""The data set of supervised and probe training: decoded image -> view -> superpixels.

Every item is a function of (seed, epoch, position), whichever process or worker makes it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cast_sdk.decoding import reader
from cast_sdk.errors import InputError
from cast_sdk.spec import IMAGENET_MEAN, IMAGENET_STD, SuperpixelSettings
from cast_sdk.superpixels import seeds_count, superpixels_for
from cast_sdk.system.opencv import import_cv2
from cast_sdk.training.data import transforms
from cast_sdk.training.data.augment.crops import Pixels
from cast_sdk.training.data.augment.erasing import erase, erased_box
from cast_sdk.training.data.augment.train_view import TrainView
from cast_sdk.training.data.kept import Kept
from cast_sdk.training.data.sampler import EpochSampler, Key
from cast_sdk.training.data.sources import ImageSource
from cast_sdk.training.engine.recipe.settings import Recipe

log = logging.getLogger(__name__)
OnBadImage = Literal["error", "skip"]


def decode(data: bytes, name: str) -> Tensor:
    """Encoded image -> uint8 RGB [3,H,W], with the pixels that the runtime sees.

    Raises:
        InputError: for a damaged or foreign file, with its name.
    """
    try:
        pixels = reader.decode(data, name)
    except InputError as error:
        raise InputError(
            error.problem,
            found=error.found,
            remedy="replace or remove the file, or run with --on-bad-image skip",
        ) from error
    return torch.from_numpy(import_cv2().cvtColor(pixels, import_cv2().COLOR_BGR2RGB)).permute(2, 0, 1)


class Images(Dataset[Any]):
    """Decoded images by index; `cache()` keeps all of them in memory, which suits small data sets."""

    def __init__(self, source: ImageSource, on_bad: OnBadImage = "error") -> None:
        self.source = source
        self.on_bad = on_bad
        self.decoded: Kept | None = None
        self.bad: set[int] = set()

    def __len__(self) -> int:
        return len(self.source)

    def cache(self, progress: Callable[[int], None] = lambda done: None) -> None:
        def load() -> Iterator[Tensor]:
            for index in range(len(self)):
                yield self._load(index)
                progress(index + 1)

        self.decoded = Kept(load())

    def image(self, index: int) -> tuple[Tensor, int]:
        """uint8 [3,H,W] and label; of the next good one as `readable` says."""
        image, at = self.readable(index)
        return image, int(self.source.labels[at])

    def readable(self, index: int) -> tuple[Tensor, int]:
        """uint8 [3,H,W] and its index. A bad image is replaced by the next good one when `on_bad` is "skip"."""
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            if at in self.bad:
                continue
            image = self._load(at) if self.decoded is None else self.decoded[at]
            if image.numel():
                return image, at
        raise InputError(f"No readable images in {self.source.root / self.source.split}.")

    def _load(self, index: int) -> Tensor:
        try:
            return decode(self.source.read(index), self.source.names[index])
        except InputError as error:
            if self.on_bad == "error":
                raise
            log.warning("skipped: %s %s", error.problem, error.found)
            self.bad.add(index)
            return torch.empty(0)


class LabelledViews(Dataset[Any]):
    """Items (image, superpixels int32 [H,W], label) of one view each.

    The image is uint8 [3,H,W], or normalised float where the recipe's superpixels are computed after normalisation.
    With `superpixels` off (models that take none) the maps are empty. With `scores` [images, classes], those of a
    teacher, items end in the image's own row, float32.
    """

    def __init__(
        self,
        images: Images,
        recipe: Recipe,
        train: bool,
        superpixels: bool = True,
        scores: npt.NDArray[np.float16] | None = None,
    ) -> None:
        self.scores = scores
        self.images, self.train, self.seed, self.superpixels = images, train, recipe.train.seed, superpixels
        self.first_settings = recipe.superpixels.settings()
        self.asked = torch.tensor(self.first_settings.count).share_memory_()  # workers that live on see its changes
        self.random_view = TrainView(recipe.augment) if train else None
        self.whole_view = transforms.eval_geometry(recipe.augment)
        self.erasing = recipe.augment.erase if train else 0.0
        self.after_normalising = recipe.superpixels.source == "denormalised"
        imagenet, self.back = (IMAGENET_MEAN, IMAGENET_STD), (recipe.augment.eval_mean, recipe.augment.eval_std)
        self.there = imagenet if train else self.back
        self.normalises = self.after_normalising or self.erasing > 0 or self.there != imagenet

    def __len__(self) -> int:
        return len(self.images)

    @property
    def settings(self) -> SuperpixelSettings:
        """Of the superpixels that items get now."""
        return dataclasses.replace(self.first_settings, count=int(self.asked))

    def set_count(self, superpixels: int) -> None:
        """Ask for another number of superpixels from the next loader iteration on."""
        self.asked.fill_(superpixels)

    def count(self, superpixels: Tensor) -> int | None:
        """S of a batch of label maps [N,H,W] from this data set; None without superpixels."""
        if not self.superpixels:
            return None
        return seeds_count(superpixels.shape[-2], superpixels.shape[-1], self.settings.count)

    def __getitem__(self, key: Key) -> tuple[Any, ...]:
        index, epoch, position = key
        image, at = self.images.readable(index)
        label = int(self.images.source.labels[at])
        extra = () if self.scores is None else (torch.from_numpy(self.scores[at].astype(np.float32)),)
        generator = np.random.default_rng((self.seed, epoch, position))
        if self.random_view is None:
            view = transforms.pixels_of(self.whole_view(image))
        else:
            view = self.random_view(transforms.pixels_of(image), generator)
        return (*self._with_superpixels(view, generator), label, *extra)

    def _with_superpixels(self, view: Pixels, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        erased = None
        if self.normalises:
            image = transforms.normalised(view, *self.there)
            erased = erased_box(view.shape[0], view.shape[1], self.erasing, generator)
            if erased is not None:
                erase(image.numpy(), erased, generator)
        else:
            image = transforms.planes(view)
        if not self.superpixels:
            return image, torch.empty(0, dtype=torch.int32)
        if self.after_normalising:
            view = transforms.denormalised(view, image, erased, self.there, self.back)
        return image, torch.from_numpy(superpixels_for(view, self.settings))


def loader(dataset: Dataset[Any], sampler: EpochSampler, workers: int = 0, pin: bool = False) -> DataLoader[Any]:
    """A loader whose worker processes compute on one thread each and live as long as the loader."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_one_thread if workers else None,
        prefetch_factor=4 if workers else None,
        persistent_workers=workers > 0,
        multiprocessing_context="forkserver" if workers else None,
    )


def to_device(batch: Any, device: torch.device, channels_last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """A loader's batch as normalised images, superpixels and targets on the device."""
    images, superpixels, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
    images = transforms.normalise(images)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return images, superpixels, targets


def _one_thread(_: int) -> None:
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
