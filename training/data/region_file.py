"""`regions.npz`: photographs and their nested regions, the photographs as pixels or encoded.

write_regions(Path("DATA/regions.npz"), images, maps)           # uint8 [n,h,w,3] and uint8 [n,4,h,w]
images, maps = read_regions(Path("DATA/regions.npz"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.system.files import atomic_write
from cast_sdk.training.data.arrays import read_arrays

FILE = "regions.npz"
Pixels = npt.NDArray[np.uint8]
_WHAT = "no images with regions, which a loss on the levels needs"
_REMEDY = "prepare_data.py regions --help; or --set levels.weight=0"


def read_regions(path: Path) -> tuple[Pixels, Pixels]:
    """RGB photographs uint8 [n,h,w,3] and the regions of four levels, uint8 [n,4,h,w].

    Raises:
        InputError: when the file is missing or holds something else.
    """
    images, maps = read_arrays(path, ("images", "maps"), _WHAT, _REMEDY)
    if images.ndim == 1:
        (ends,) = read_arrays(path, ("ends",), _WHAT, _REMEDY)
        images = _decoded(path, images, ends)
    if maps.ndim != 4 or maps.shape != (len(images), 4, *images.shape[1:3]):
        raise InputError(
            f"The maps of {path} do not fit its images.",
            found=f"images {list(images.shape)}, maps {list(maps.shape)}",
            remedy="make the file again: prepare_data.py regions",
        )
    return images, maps


def write_regions(path: Path, images: Pixels, maps: Pixels) -> None:
    """Both as they are, compressed."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, images=images, maps=maps)


def write_encoded(path: Path, images: Sequence[bytes], maps: Pixels) -> None:
    """Photographs that are encoded, of one size; nothing is compressed, as a packed file is as a whole."""
    ends = np.cumsum([len(data) for data in images])
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=np.frombuffer(b"".join(images), np.uint8), ends=ends, maps=maps)


def _decoded(path: Path, data: Pixels, ends: npt.NDArray[np.integer]) -> Pixels:
    from cast_sdk.training.data.dataset import decode

    starts = [0, *ends[:-1].tolist()]
    parts = [data[start:end].tobytes() for start, end in zip(starts, ends.tolist(), strict=True)]
    images = [decode(part, f"{number} of {path}").permute(1, 2, 0).numpy() for number, part in enumerate(parts)]
    if len({image.shape for image in images}) != 1:
        raise InputError(f"The images of {path} have different sizes.", remedy="make the file again")
    return np.stack(images)
