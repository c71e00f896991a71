"""Images with a class per pixel: what all dense data sets have in common.

A reader (`ade20k`, `pcontext`, `voc`, `camvid`) finds the files of a split in the data set's official layout and says
how its label files are to be read; `DenseSplit` decodes them. Label 255 means "does not count".
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.decoding.reader import read_image
from cast_sdk.errors import InputError, RecipeError
from cast_sdk.system.files import check_ordinary
from cast_sdk.training.data.dataset import OnBadImage

log = logging.getLogger(__name__)

IGNORE = 255
Pixels = npt.NDArray[np.uint8]
_SKIP = "copy the file again, or run with --on-bad-image skip"


@dataclass(frozen=True)
class Pair:
    """One photograph and its class map."""

    name: str
    image: Path
    label: Path


@dataclass
class DenseSplit:
    """A split of a dense data set.

    Attributes:
        pairs: the files, sorted as the data set lists them.
        class_names: names of classes 0..n-1.
        palette: RGB per class; empty: none of its own.
        void: raw label values that do not count.
        shift: subtracted from the raw labels that count (1 where 0 is void).
        on_bad: an unreadable file is an error, or reported and skipped.
    """

    pairs: Sequence[Pair]
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()
    void: tuple[int, ...] = (IGNORE,)
    shift: int = 0
    on_bad: OnBadImage = "error"
    bad: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[Pixels, Pixels]:
        """RGB image uint8 [h, w, 3] and class map uint8 [h, w] with 255 for pixels that do not count.

        With `on_bad="skip"` an unreadable pair is logged and replaced by the next good one.

        Raises:
            InputError: for an unreadable pair, sizes that differ or labels beyond the classes.
        """
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            if at in self.bad:
                continue
            try:
                return self._read(self.pairs[at])
            except InputError as error:
                if self.on_bad == "error":
                    raise
                log.warning("skipped: %s %s", error.problem, error.found)
                self.bad.add(at)
        raise InputError(f"None of the {len(self)} images can be read.")

    def _read(self, pair: Pair) -> tuple[Pixels, Pixels]:
        image, label = read_rgb(pair.image), self.read_label(pair.label)
        if image.shape[:2] != label.shape:
            raise InputError(
                f"{pair.label} has another size than its image.",
                found=f"{list(label.shape)} for an image of {list(image.shape[:2])}",
                remedy="convert the labels again, or run with --on-bad-image skip",
            )
        return image, label

    def read_label(self, path: Path) -> Pixels:
        """Class map uint8 [h, w] of a label file."""
        raw = read_indices(path)
        void = np.isin(raw, self.void)
        classes = raw.astype(np.int32) - self.shift
        highest = int(classes[~void].max(initial=0))
        if highest >= len(self.class_names) or int(classes[~void].min(initial=0)) < 0:
            raise InputError(
                f"{path} has labels that are no classes of this data set.",
                found=f"label {highest + self.shift}, classes are 0..{len(self.class_names) - 1}",
                remedy="check that it is the class map of this data set, not of another one",
            )
        classes[void] = IGNORE
        return classes.astype(np.uint8)


def read_rgb(path: Path) -> Pixels:
    """uint8 [h, w, 3], red first, with the pixels that the runtime sees.

    Raises:
        InputError: missing, damaged or not an image.
    """
    try:
        return np.ascontiguousarray(read_image(path)[..., ::-1])
    except InputError as error:
        raise InputError(error.problem, found=error.found, remedy=_SKIP) from error


def read_indices(path: Path) -> npt.NDArray[np.integer]:
    """Stored values of a label image, [h, w]; of a palette image the indices.

    Raises:
        InputError: missing, damaged, an image of colours, or a JPEG, whose values are no indices any more.
    """
    from PIL import Image

    check_ordinary(path)
    try:
        with Image.open(path) as image:
            values, lossy = np.array(image), image.format == "JPEG"
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(path, error) from error
    if values.ndim != 2:
        raise InputError(
            f"{path} is a colour image, not a class map with one index per pixel.",
            found=f"shape {list(values.shape)}",
            remedy="use the data set's index or palette PNG files",
        )
    if lossy:
        raise InputError(
            f"{path} is a JPEG, whose compression changes class numbers.",
            remedy="save the class maps as PNG from what the JPEG was made of",
        )
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def read_mat(path: Path) -> dict[str, Any]:
    """Variables of a MATLAB file.

    Raises:
        InputError: missing, damaged or of version 7.3.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    check_ordinary(path)
    try:
        return loadmat(path)
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MatReadError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} cannot be read.",
        found=f"{type(error).__name__}: {error}",
        remedy=_SKIP,
    )


def find_home(root: Path, below: Sequence[str], needs: Sequence[str], what: str, remedy: str) -> Path:
    """The first of `root` and `root/<below>` that has the folders `needs`.

    Raises:
        RecipeError: naming what is missing.
    """
    for candidate in [root, *(root / part for part in below)]:
        if all((candidate / need).is_dir() for need in needs):
            return candidate
    missing = [need for need in needs if not (root / need).is_dir()]
    raise RecipeError(
        f"{root} is not the folder of {what}: no {', '.join(missing)}."
        if root.is_dir()
        else f"The data folder {root} does not exist.",
        remedy=remedy,
    )


def paired(images: Sequence[Path], label_of: Sequence[Path], what: str) -> list[Pair]:
    """Pairs whose files all exist.

    Raises:
        RecipeError: for an empty split or missing files, with how many and the first.
    """
    missing = [path for path in (*images, *label_of) if not path.is_file()]
    if missing or not images:
        raise RecipeError(
            f"{len(missing)} files of {what} are missing, first {missing[0]}." if missing else f"No images of {what}.",
            remedy="python training/prepare_data.py says what to download and convert",
        )
    return [Pair(image.stem, image, label) for image, label in zip(images, label_of, strict=True)]
