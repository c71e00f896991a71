"""Naming segments with CLIP: which object, which part of it? Pure functions over a text-image encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.training.data.arrays import read_array, read_arrays
from cast_sdk.training.data.dense.partimagenet import PartImageNet
from cast_sdk.training.data.transforms import normalise
from cast_sdk.training.metrics.semantic import image_jaccard

SIDE = 224
FILL = 0.5  # of the masked-out pixels, in the already normalised image

Labels = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


class TextImageEncoder(Protocol):
    """CLIP, or anything that puts images and texts into one space."""

    def preprocess(self, image: Any) -> Tensor:
        """PIL image -> normalised float [3,224,224]."""

    def images(self, batch: Tensor) -> Tensor:
        """[N,3,224,224] -> unit vectors [N,D]."""

    def texts(self, names: Sequence[str]) -> Tensor:
        """Unit vectors [K,D] of "a photo of a <name>"."""


class OpenClip:
    """OpenCLIP; the published numbers use ViT-B-16 with OpenAI's weights.

    Args:
        model: architecture of open_clip.
        pretrained: its tag of weights, or a file.
        device: torch device.
    """

    def __init__(self, model: str = "ViT-B-16", pretrained: str = "openai", device: str | torch.device = "cpu") -> None:
        try:
            import open_clip
        except ImportError as error:
            raise MissingDependencyError(
                "OpenCLIP, which names the segments, is missing.",
                found=str(error),
                remedy="pip install open_clip_torch",
            ) from error
        self.device = torch.device(device)
        network, _, self._preprocess = open_clip.create_model_and_transforms(model, pretrained=pretrained)
        self.network = network.eval().to(self.device)
        self.tokenizer = open_clip.get_tokenizer(model)

    def preprocess(self, image: Any) -> Tensor:
        return self._preprocess(image)

    @torch.inference_mode()
    def images(self, batch: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            return F.normalize(self.network.encode_image(batch.to(self.device)).float(), dim=-1)

    @torch.inference_mode()
    def texts(self, names: Sequence[str]) -> Tensor:
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            tokens = self.tokenizer([f"a photo of a {name}" for name in names]).to(self.device)
            return F.normalize(self.network.encode_text(tokens).float(), dim=-1)


def crop(image: Any) -> Any:
    """Short side of a PIL image to 224 (bilinear) and the centre cut out."""
    from torchvision.transforms import v2

    return v2.CenterCrop(SIDE)(v2.Resize(SIDE, interpolation=v2.InterpolationMode.BILINEAR)(image))


def crop_classes(classes: Pixels) -> Pixels:
    """The same of a class map uint8 [h, w], as tensors are resized: the top left pixel of a cell, not its centre."""
    from torchvision.transforms import v2

    resize = v2.Resize(SIDE, interpolation=v2.InterpolationMode.NEAREST)
    cut: Pixels = v2.CenterCrop(SIDE)(resize(torch.from_numpy(classes)[None]))[0].numpy()
    return cut


# ------------------------------------------------------------------------------------------- segments


def cast_segments(model: Any, pixels: Pixels, reference: bool = False) -> list[Labels]:
    """Level maps of a CAST, int64 [224, 224] each, fine to coarse.

    Args:
        model: CAST in evaluation mode.
        pixels: uint8 [224, 224, 3].
        reference: number of tokens from the largest label left after down-sampling; superpixels that got none repeat
            the last one's segment, as the published program does. Default: every superpixel has a token.
    """
    import cv2

    from cast_sdk.superpixels import seeds_count, superpixels_for

    side = model.spec.image_size
    image = pixels if side == SIDE else cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    superpixels = superpixels_for(np.ascontiguousarray(image), model.spec.superpixels)
    count: Any = "batch" if reference else seeds_count(side, side, model.spec.superpixels.count)
    device = next(model.parameters()).device
    with torch.inference_mode():
        batch = normalise(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]).to(device)
        out = model(batch, torch.from_numpy(superpixels)[None].to(device), count)
    maps = []
    for level in out.levels:
        labels = level.labels[0].cpu().numpy()
        short = int(superpixels.max()) + 1 - len(labels)
        labels = np.concatenate([labels, np.repeat(labels[-1:], max(short, 0))])
        maps.append(_enlarged(labels[superpixels]))
    return maps


def vit_segments(model: Any, pixels: Pixels, clusters: Sequence[int], seed: int = 0) -> list[Labels]:
    """Spherical k-means levels of a ViT's patch tokens, int64 [224, 224] each."""
    from cast_sdk.training.metrics.levels import vit_levels

    return [_enlarged(level.astype(np.int64)) for level in vit_levels(model, clusters, seed)(pixels)]


def _enlarged(labels: npt.NDArray[np.integer]) -> Labels:
    rows = np.arange(SIDE) * labels.shape[0] // SIDE
    columns = np.arange(SIDE) * labels.shape[1] // SIDE
    return labels[np.ix_(rows, columns)].astype(np.int64)


def sam_masks(generator: Any, image: Any) -> npt.NDArray[np.bool_]:
    """Masks of SAM's automatic generator on the 224 crop (bicubic), largest first: bool [n, 224, 224]."""
    from torchvision.transforms import v2

    resized = v2.CenterCrop(SIDE)(v2.Resize(SIDE, interpolation=v2.InterpolationMode.BICUBIC)(image))
    found = sorted(generator.generate(np.array(resized)), key=lambda mask: -mask["area"])
    return np.stack([mask["segmentation"] for mask in found]) if found else np.zeros((0, SIDE, SIDE), bool)


# ------------------------------------------------------------------------------------------- naming


class MissingSegment(Exception):
    """A segment index below the largest one owns no pixel: the published program drops such an image."""


@dataclass(frozen=True)
class Vocabulary:
    """Text vectors of the objects with background, and of the parts of each object."""

    data: PartImageNet
    objects: Tensor  # [11 + 1, D]
    parts: tuple[Tensor, ...]  # per object [parts, D]

    @classmethod
    def encode(cls, data: PartImageNet, encoder: TextImageEncoder) -> Vocabulary:
        parts = tuple(
            encoder.texts([data.parts[part] for part in data.parts_of(index)]) for index in range(len(data.objects))
        )
        objects = encoder.texts([*data.objects, "Background"])
        return cls(data, objects.cpu(), tuple(part.cpu() for part in parts))


def masked(image: Tensor, masks: npt.NDArray[np.bool_]) -> Tensor:
    """The normalised image [3,H,W] once per mask [n,H,W], 0.5 outside it: [n,3,H,W]."""
    keep = torch.from_numpy(masks)[:, None]
    return torch.where(keep, image[None], torch.tensor(FILL))


def masks_of(labels: Labels, strict: bool) -> npt.NDArray[np.bool_]:
    """Masks of segments 0..max: bool [n, h, w].

    Raises:
        MissingSegment: with `strict`, when an index owns no pixel. Otherwise it is left out.
    """
    present = np.unique(labels)
    if strict and len(present) <= present[-1]:
        raise MissingSegment
    return labels[None] == present[:, None, None]


def name_objects(features: Tensor, masks: npt.NDArray[np.bool_], words: Vocabulary, overlap: bool = False) -> Pixels:
    """Object map uint8 [h, w] from the image vectors [n,D] of the masks; background where no mask is.

    Args:
        overlap: masks overlap (SAM): earlier ones keep their pixels.
    """
    chosen = (features @ words.objects.T).argmax(1).tolist()
    result = np.full(masks.shape[1:], len(words.data.objects), np.uint8)
    free = np.ones(masks.shape[1:], bool)
    for mask, index in zip(masks, chosen, strict=True):
        area = mask & free if overlap else mask
        result[area] = index
        free &= ~mask
    return result


def name_parts(features: Tensor, masks: npt.NDArray[np.bool_], objects: Pixels, words: Vocabulary) -> Pixels:
    """Part map uint8 [h, w]: of the object at each mask's first pixel in raster order, its best part."""
    result = np.full(masks.shape[1:], len(words.data.parts), np.uint8)
    flat = objects.ravel()
    for mask, feature in zip(masks, features, strict=True):
        owner = int(flat[mask.ravel().argmax()])
        if owner < len(words.parts):
            best = int((words.parts[owner] @ feature).argmax())
            result[mask] = words.data.parts_of(owner)[best]
        else:
            result[mask] = len(words.data.parts)
    return result


def score_image(
    encoder: TextImageEncoder,
    words: Vocabulary,
    image: Any,
    segments: Sequence[Labels] | npt.NDArray[np.bool_],
    truth: tuple[Pixels, Pixels],
    strict: bool = False,
) -> tuple[float, float]:
    """Macro Jaccard index of the object map and of the part map of one image, 0..1.

    Args:
        image: PIL image.
        segments: level maps fine to coarse (the coarsest names objects, the one before it parts), or SAM masks.
        truth: object and part maps at the crop.
        strict: raise MissingSegment as the published program fails on.
    """
    pixels = encoder.preprocess(image)
    if isinstance(segments, np.ndarray):
        whole, detail, overlap = segments, segments, True
    else:
        whole, detail, overlap = masks_of(segments[-1], False), masks_of(segments[-2], strict), False
    objects = name_objects(_features(encoder, pixels, whole, words), whole, words, overlap)
    parts = name_parts(_features(encoder, pixels, detail, words), detail, objects, words)
    data = words.data
    return (
        image_jaccard(objects, truth[0], len(data.objects) + 1),
        image_jaccard(parts, truth[1], len(data.parts) + 1),
    )


def _features(encoder: TextImageEncoder, image: Tensor, masks: npt.NDArray[np.bool_], words: Vocabulary) -> Tensor:
    none = torch.zeros(0, words.objects.shape[1])
    groups = [masks[i : i + 32] for i in range(0, len(masks), 32)]
    return torch.cat([none, *(encoder.images(masked(image, group)).cpu() for group in groups)])


def load_segments(folder: Path, name: str) -> list[Labels] | npt.NDArray[np.bool_]:
    """What `parts.py segments` wrote for an image.

    Raises:
        InputError: when it is missing or damaged.
    """
    if (folder / "masks" / f"{name}.npz").is_file():
        (packed,) = read_arrays(folder / "masks" / f"{name}.npz", ("packed",), "no masks")
        if packed.dtype != np.uint8 or packed.ndim != 3:
            raise InputError(f"The masks of {name} are {packed.dtype} {list(packed.shape)}.", remedy="make them again")
        return np.unpackbits(packed, axis=-1)[:, :, :SIDE].astype(bool)
    files = [folder / f"level{level}" / f"{name}.npy" for level in range(1, 5)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{name} has no segments: no {missing[0]}.",
            remedy="python training/parts.py segments ... continues where it stopped",
        )
    return [read_array(file, "no segments") for file in files]
