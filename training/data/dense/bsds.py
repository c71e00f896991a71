"""BSDS500: photographs with the segmentations that several people drew, and folders of label maps in general."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError, RecipeError
from cast_sdk.images import images_in
from cast_sdk.system.files import check_ordinary
from cast_sdk.training.data.arrays import read_array
from cast_sdk.training.data.dense.base import read_mat

SPLITS = ("train", "val", "test")
_LABELS = (".png", ".tif", ".tiff", ".npy", ".mat")


@dataclass(frozen=True)
class Annotation:
    """One person's segmentation of an image: int32 [h, w] labels and bool [h, w] outlines."""

    labels: npt.NDArray[np.int32]
    boundaries: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class AnnotatedImage:
    """Path of a photograph and of the files that hold its segmentations."""

    name: str
    image: Path
    truths: tuple[Path, ...]

    def annotations(self) -> list[Annotation]:
        """Segmentations of all annotators, in the order of the files."""
        return [annotation for path in self.truths for annotation in read_annotations(path)]


def read_annotations(path: Path) -> list[Annotation]:
    """Segmentations in one file: all of a BSDS `.mat` file, or the one of an image or `.npy` label map.

    Raises:
        InputError: when the file is missing, damaged or holds no two-dimensional label maps.
    """
    from cast_sdk.training.metrics.partition import region_boundaries

    try:
        if path.suffix == ".mat":
            cells = read_mat(path)["groundTruth"].ravel()
            people = [cell[0, 0] for cell in cells]
            return [
                Annotation(person["Segmentation"].astype(np.int32), person["Boundaries"].astype(bool))
                for person in people
            ]
        labels = read_array(path, "no segmentation") if path.suffix == ".npy" else _read_label_image(path)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"{path} holds no segmentation that can be read.",
            found=f"{type(error).__name__}: {error}",
            remedy="copy the file again: a BSDS .mat file, an image or a .npy array",
        ) from error
    if labels.ndim != 2 or labels.size == 0:
        raise InputError(f"{path} is no label map of height x width.", found=f"shape {list(labels.shape)}")
    if labels.dtype.kind not in "bui" or (labels.dtype.itemsize > 2 and (labels != labels.astype(np.int32)).any()):
        raise InputError(
            f"{path} is no label map.", found=f"numbers of type {labels.dtype}", remedy="save whole numbers below 2^31"
        )
    labels = labels.astype(np.int32)
    return [Annotation(labels, region_boundaries(labels))]


def _read_label_image(path: Path) -> npt.NDArray[np.int32]:
    from PIL import Image

    check_ordinary(path)
    with Image.open(path) as image:
        values = np.asarray(image)
    if values.ndim == 3:  # a colour per segment
        values = values[..., 0].astype(np.int32) + 256 * values[..., 1].astype(np.int32) + 65536 * values[..., 2]
    return values.astype(np.int32)


def bsds500(root: Path, split: str = "val") -> list[AnnotatedImage]:
    """Images of a split with their annotations.

    Args:
        root: folder with `images/<split>/*.jpg` and `groundTruth/<split>/*.mat`; the archive's `BSDS500/data` above
            them is found too.
        split: "train", "val" or "test".

    Raises:
        RecipeError: when the layout is another one, or images lack their segmentations.
    """
    candidates = [root, root / "data", root / "BSDS500" / "data", root / "BSR" / "BSDS500" / "data"]
    home = next((folder for folder in candidates if (folder / "images" / split).is_dir()), None)
    if home is None:
        raise RecipeError(
            f"{root} is not the folder of BSDS500: no images/{split}.",
            remedy="unpack BSR_bsds500.tgz and give the folder BSR/BSDS500/data",
        )
    return label_folder(home / "images" / split, home / "groundTruth" / split)


def label_folder(images: Path, truths: Path) -> list[AnnotatedImage]:
    """Images of a folder with the label maps that share their names.

    The maps of `photo.jpg` are `photo.{png,tif,npy,mat}`, `photo_<anything>.<suffix>` or files in the folder `photo/`:
    one per annotator.

    Raises:
        RecipeError: for a missing or empty folder or an image without a label map.
    """
    for folder in (images, truths):
        if not folder.is_dir():
            raise RecipeError(f"The folder {folder} does not exist.", remedy="images and label maps are in two folders")
    files = images_in(images)
    if not files:
        raise RecipeError(f"No images in {images}.")
    entries = [AnnotatedImage(path.stem, path, tuple(_truths_of(path.stem, truths))) for path in files]
    missing = [entry.name for entry in entries if not entry.truths]
    if missing:
        raise RecipeError(
            f"{len(missing)} of {len(files)} images have no label map of their name, for example {missing[0]}.",
            remedy=f"put {missing[0]}.png, .npy or .mat into {truths}",
        )
    return entries


def _truths_of(name: str, folder: Path) -> Iterator[Path]:
    for suffix in _LABELS:
        if (folder / f"{name}{suffix}").is_file():
            yield folder / f"{name}{suffix}"
    yield from sorted(path for path in folder.glob(f"{name}_*") if path.suffix.lower() in _LABELS)
    if (folder / name).is_dir():
        yield from sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in _LABELS)
