"""Reading a person's images as the runtime reads them: orientation, 16 bits, transparency, and the very same resizing.

So an exported model sees in `cast-segment` what was judged here.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cast_sdk.decoding.reader import decode, read_image
from cast_sdk.errors import InputError
from cast_sdk.runtime.preprocess import fit_geometry, resize
from cast_sdk.system.files import check_ordinary
from cast_sdk.system.processor import available_cores
from cast_sdk.training.data.dataset import Images, OnBadImage
from cast_sdk.training.data.kept import Kept
from cast_sdk.training.data.sources import ImageSource
from cast_sdk.training.engine.progress import progress
from cast_sdk.training.own.classes.labelled import Labelled
from cast_sdk.training.own.splitting import digest

log = logging.getLogger(__name__)
Pixels = npt.NDArray[np.uint8]
CHECKED = 20_000  # images; of more only as many, evenly spread, are looked at before a run
CACHE_BYTES = 1_500_000_000
SPARE = 2  # training images are kept at twice the model's size, from which crops are cut


@dataclass(frozen=True)
class Survey:
    """What was seen of the images before a run.

    Attributes:
        heights, widths: in pixels, of the images that were read.
        contents: a digest of each file; empty for those that were not looked at.
        bad: what is wrong with an image, by its number.
    """

    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    contents: list[bytes]
    bad: dict[int, str]

    @property
    def short_side(self) -> int:
        """Median of the shorter sides in pixels."""
        return int(np.median(np.minimum(self.heights, self.widths)))


def read_frame(source: ImageSource | Labelled, index: int) -> Pixels:
    """One image as the runtime reads it: uint8 [h,w,3] BGR.

    Raises:
        InputError: for an unreadable image, with its name.
    """
    path, offset, size = source.place(index)
    if offset < 0:
        return read_image(path)
    with Path(path).open("rb") as file:
        file.seek(offset)
        return decode(file.read(size), source.names[index])


def look_at(images: Labelled) -> Survey:
    """Read images (see CHECKED) once: their sizes, contents and what is wrong with them."""
    step = max(1, -(-len(images) // CHECKED))
    chosen = range(0, len(images), step)

    def one(index: int) -> tuple[int, int, bytes, str]:
        path, offset, size = images.place(index)
        try:
            check_ordinary(path)
            with Path(path).open("rb") as file:
                file.seek(max(offset, 0))
                data = file.read(size if offset >= 0 else -1)
            height, width = decode(data, images.names[index]).shape[:2]
        except (InputError, OSError) as error:
            problem = error.problem if isinstance(error, InputError) else str(error)
            return 0, 0, b"", problem
        return height, width, digest(data), ""

    with ThreadPoolExecutor(available_cores()) as pool:
        seen = list(progress(pool.map(one, chosen), "looking at the images", len(chosen)))
    contents = [b""] * len(images)
    bad = {}
    for index, (_, _, mark, problem) in zip(chosen, seen, strict=True):
        contents[index] = mark or index.to_bytes(8, "little")
        if problem:
            bad[index] = problem
    for index in range(len(images)):
        contents[index] = contents[index] or index.to_bytes(8, "little")
    good = [(height, width) for height, width, _, problem in seen if not problem]
    sizes = np.array(good or [(0, 0)], np.int64)
    return Survey(sizes[:, 0], sizes[:, 1], contents, bad)


class OwnImages(Images):
    """Images by index, read as the runtime reads them.

    Args:
        source: the images.
        side: of the model in pixels.
        train: crops are cut from them: kept no larger than SPARE times the side. Otherwise they are resized to the
            model's input, as the runtime does.
        on_bad: see `Images`.
    """

    def __init__(self, source: ImageSource, side: int, train: bool, on_bad: OnBadImage = "error") -> None:
        super().__init__(source, on_bad)
        self.side, self.shrink = side, train

    def _load(self, index: int) -> Tensor:
        try:
            frame = read_frame(self.source, index)
        except InputError as error:
            if self.on_bad == "error":
                raise
            log.warning("skipped: %s %s", error.problem, error.found or "")
            self.bad.add(index)
            return torch.empty(0)
        size = reduced_size(frame.shape[0], frame.shape[1], SPARE * self.side) if self.shrink else (self.side,) * 2
        return torch.from_numpy(stretched(frame, size)).permute(2, 0, 1)

    def keep(self) -> bool:
        """Keep the decoded images in memory if they fit into CACHE_BYTES. Whether they are kept."""
        area = self.side**2 * (SPARE**2 * 1.5 if self.shrink else 1)
        if 3 * area * len(self) > CACHE_BYTES:
            return False
        with ThreadPoolExecutor(available_cores()) as pool:
            loaded = pool.map(self._load, range(len(self)))
            self.decoded = Kept(progress(loaded, "decoding the images", len(self)))
        return True


def reduced_size(height: int, width: int, short: int) -> tuple[int, int]:
    """(height, width) of the same shape with the shorter side at most `short`."""
    factor = min(1.0, short / min(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def stretched(frame: Pixels, size: tuple[int, int]) -> Pixels:
    """The whole BGR frame at (height, width) as the runtime resizes it: RGB uint8 [H,W,3]."""
    return resize(frame, fit_geometry((frame.shape[0], frame.shape[1]), size, "stretch"))
