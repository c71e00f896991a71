"""Where labelled images come from: class folders or WebDataset tar shards, both with random access.

    source = open_source("/data/ILSVRC2014/Img", "train")
    jpeg, label = source.read(0), source.labels[0]

Folders: `ROOT/<split>/<class>/<file>`, classes in sorted order. Shards: `ROOT/<split>-*.tar` with `key.jpg` and
`key.cls`. `ROOT/classes.txt` (one class a line: id, tab, name) is optional in both.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.arguments import whole
from cast_sdk.errors import InputError
from cast_sdk.images import IMAGE_SUFFIXES, images_in
from cast_sdk.system.files import check_ordinary, read_text
from cast_sdk.training.data.texts import Texts, shared

_MOST_CLASSES = 2**22


class ImageSource:
    """Encoded images with labels: names, places and labels lie in arrays that worker processes share.

    Args:
        root, split: where they are.
        places: (file, offset, size) of each image; offset -1 means the whole file.
        labels: int64 [N].
        names: of the images, for messages.
        classes: names of the labels.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        places: Sequence[tuple[str, int, int]],
        labels: npt.NDArray[np.int64],
        names: Sequence[str],
        classes: Sequence[str] = (),
    ) -> None:
        self.root, self.split, self.classes = root, split, list(classes)
        self.names = Texts(names)
        files = {file: number for number, file in enumerate(dict.fromkeys(place[0] for place in places))}
        self._paths = Texts(files)
        self._places = shared(np.array([(files[path], *rest) for path, *rest in places], np.int64).reshape(-1, 3))
        self._labels = shared(labels)
        self._files: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """int64 [N]."""
        return self._labels.numpy()

    def place(self, index: int) -> tuple[str, int, int]:
        """(file, offset, size) of one image; offset -1 means the whole file."""
        number, offset, size = self._places[index].tolist()
        return self._paths[number], offset, size

    def size(self, index: int) -> int:
        """Bytes of one encoded image."""
        path, offset, size = self.place(index)
        return size if offset >= 0 else Path(path).stat().st_size

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image."""
        path, offset, size = self.place(index)
        if offset < 0:
            check_ordinary(path)
            try:
                return Path(path).read_bytes()
            except OSError as error:
                raise InputError(f"{path} cannot be read.", found=error.strerror, remedy="copy it again") from error
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = Path(path).open("rb")  # noqa: SIM115 (kept open for the process's life)
        file.seek(offset)
        data: bytes = file.read(size)
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # open files do not travel to worker processes


def open_source(root: str | Path, split: str) -> ImageSource:
    """The images of a split, whichever of the two layouts is there.

    Raises:
        InputError: naming what is missing: the folder, the split, images of a class, or labels in a shard.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"The data folder {root} does not exist.", remedy="--data FOLDER")
    shards = sorted(root.glob(f"{split}-*.tar"))
    if shards:
        return _open_shards(root, split, shards)
    if (root / split).is_dir():
        return _open_folders(root, split)
    raise InputError(
        f"No {split}/<class>/ folders and no {split}-*.tar shards in {root}.",
        found=", ".join(sorted(path.name for path in root.iterdir())[:8]) or "an empty folder",
        remedy=f"see docs/reproduce.md for the layout of the {split} split",
    )


def read_classes(root: Path) -> list[str]:
    """Names of `classes.txt`: the first name after the tab, or the whole line."""
    path = root / "classes.txt"
    if not path.is_file():
        return []
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return [line.partition("\t")[2].split(",")[0].strip() or line for line in lines]


def _open_folders(root: Path, split: str) -> ImageSource:
    folders = sorted(path for path in (root / split).iterdir() if path.is_dir())
    if not folders:
        raise InputError(f"No class folders in {root / split}.", remedy="sort its images into one folder per class")
    places, labels, names, empty = [], [], [], []
    for label, folder in enumerate(folders):
        files = images_in(folder)
        if not files:
            empty.append(folder.name)
        for path in files:
            places.append((str(path), -1, 0))
            labels.append(label)
            names.append(str(path))
    if empty:
        raise InputError(
            f"{len(empty)} class folders without images in {root / split}.",
            found=", ".join(empty[:6]),
            remedy="add the images, or remove the folders from both splits",
        )
    classes = read_classes(root) or [folder.name for folder in folders]
    numbers = np.array(labels, np.int64)
    _check_labels(root, numbers, classes)
    return ImageSource(root, split, places, numbers, names, classes)


def _check_labels(root: Path, labels: npt.NDArray[np.int64], classes: Sequence[str]) -> None:
    """Refuse labels that no class has."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        raise InputError(
            f"The labels are {low}..{high}, and there are {len(classes)} classes.",
            remedy=f"labels count from 0; {root / 'classes.txt'} has one line for each",
        )


def _open_shards(root: Path, split: str, shards: list[Path]) -> ImageSource:
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    for shard in shards:
        check_ordinary(shard)
        try:
            with tarfile.open(shard) as tar:
                for member in tar:
                    stem, dot, suffix = member.name.partition(".")
                    key = f"{shard.name}/{stem}"
                    if (dot + suffix).lower() in IMAGE_SUFFIXES:
                        images[key] = (str(shard), member.offset_data, member.size)
                    elif suffix == "cls":
                        text = tar.extractfile(member)
                        label = int(text.read(32)) if text else -1
                        labels[key] = whole(label, f"the label of {key}", -1, _MOST_CLASSES)
        except (tarfile.TarError, ValueError, EOFError, OSError) as error:
            raise InputError(
                f"The shard {shard} is damaged.",
                found=str(error),
                remedy="copy or write it again: a tar file with key.jpg and key.cls for every image",
            ) from error
    unlabelled = [key for key in images if key not in labels]
    if unlabelled or not images:
        raise InputError(
            f"{len(unlabelled)} images without a label, first {unlabelled[0]}."
            if unlabelled
            else f"No images in {shards[0]}.",
            remedy="write the shards with key.jpg and key.cls for every image",
        )
    keys = list(images)
    numbers = np.array([labels[key] for key in keys], np.int64)
    classes = read_classes(root)
    if not classes:
        whole(int(numbers.max()), "the highest label", 0, _MOST_CLASSES)
        classes = [str(label) for label in range(int(numbers.max()) + 1)]
    _check_labels(root, numbers, classes)
    return ImageSource(root, split, [images[key] for key in keys], numbers, keys, classes)
