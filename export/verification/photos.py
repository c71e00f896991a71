"""Real images for verification, calibration and quality reports, prepared as a graph takes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cast_sdk import bundled
from cast_sdk.arguments import shown
from cast_sdk.errors import ExportError, InputError
from cast_sdk.images import IMAGE_SUFFIXES, images_in
from cast_sdk.runtime.preprocess import Fit, prepare
from cast_sdk.spec import ModelSpec
from cast_sdk.superpixels import superpixels_for
from cast_sdk.system.files import kind_at

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Inputs:
    """Inputs of a graph for several images: `image` uint8 [n,H,W,3], `superpixels` int32 [n,H,W], and their files."""

    image: npt.NDArray[np.uint8]
    superpixels: npt.NDArray[np.int32]
    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)


def find_images(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None) -> list[Path]:
    """Image files named one by one or by folder (searched in depth, sorted); the bundled photographs for None.

    Raises:
        ExportError: for a path that does not exist, or when no image is found.
    """
    if paths is None:
        return bundled.photos()
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    if not isinstance(paths, Sequence) or not all(isinstance(path, (str, os.PathLike)) for path in paths):
        raise ExportError(f"The images are {shown(paths)}.", remedy="name image files or folders of them")
    found: list[Path] = []
    for path in map(Path, paths):
        kind = kind_at(path)
        if kind == "folder":
            found += images_in(path, deep=True)
        elif kind == "file":
            found.append(path)
        else:
            raise ExportError(f"{path} does not exist.", remedy="name image files or folders of them")
    if not found:
        raise ExportError(
            f"There are no images in {', '.join(str(path) for path in paths)}." if paths else "No image was named.",
            remedy=f"name images or folders of {', '.join(sorted(IMAGE_SUFFIXES))} files",
        )
    return found


def read_inputs(
    spec: ModelSpec,
    size: tuple[int, int],
    paths: Iterable[Path],
    *,
    fit: Fit = "stretch",
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> Inputs:
    """Read, resize and segment images into superpixels with the model's settings.

    Args:
        spec: whose superpixel settings count.
        size: (height, width) of the graph.
        skip_unreadable: leave out files that are no image instead of failing.
        progress: called with (done, total).

    Raises:
        ExportError: when no image is readable.
        InputError: for an unreadable one, unless they are skipped.
    """
    images, maps, read, bad = [], [], [], []
    files = list(paths)
    for number, path in enumerate(files, 1):
        try:
            prepared = prepare(path, size, fit)
        except InputError:
            if not skip_unreadable:
                raise
            bad.append(path)
            continue
        images.append(prepared.image)
        maps.append(
            superpixels_for(prepared.image, spec.superpixels) if spec.uses_superpixels else np.zeros(size, np.int32)
        )
        read.append(path)
        if progress is not None:
            progress(number, len(files))
    if not read:
        raise ExportError(
            f"None of {len(bad)} images can be read." if bad else "There are no images to read.",
            found=f"damaged files, such as {bad[0]}" if bad else None,
            remedy="name image files that other programs open",
        )
    return Inputs(np.stack(images), np.stack(maps), tuple(read))
