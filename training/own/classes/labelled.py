"""A person's labelled images, however they lie: class folders, a table of paths and classes, or tar shards.

    images = find_labelled(Path("birds"))      # folders, with or without train/ and val/
    images = find_labelled(Path("birds.csv"))  # path,class or path,class,split

Hidden files and folders (names that begin with a dot, `__MACOSX`) are passed over. What else is left out is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.images import images_in, is_image
from cast_sdk.system.files import read_csv
from cast_sdk.training.data.sources import ImageSource, open_source

VALIDATION = ("val", "valid", "validation")  # names of a split that judges
TRAIN, VAL, TEST = 0, 1, 2  # test images are neither trained on nor judged by while training
_LAYOUTS = "DATA/<class>/*.jpg, DATA/train/<class>/*.jpg, a CSV of path,class, or shards DATA/train-*.tar"


@dataclass
class Labelled:
    """Labelled images.

    Attributes:
        root: the folder of the data, or that of its table.
        places: (file, offset, size) of each image; offset -1 means the whole file.
        names: of the images, relative to `root`.
        labels: class of each image, int64 [N].
        classes: names in label order.
        split: TRAIN, VAL or TEST of each image, int8 [N]; None where the data has only one part.
        notes: what was left out or looks odd, for people.
        kind: what the data is, for people.
    """

    root: Path
    places: list[tuple[str, int, int]]
    names: list[str]
    labels: npt.NDArray[np.int64]
    classes: list[str]
    split: npt.NDArray[np.int8] | None = None
    notes: list[str] = field(default_factory=list)
    kind: str = ""

    def __len__(self) -> int:
        return len(self.places)

    def place(self, index: int) -> tuple[str, int, int]:
        """(file, offset, size) of one image."""
        return self.places[index]

    def source(self, chosen: npt.NDArray[np.integer], split: str) -> ImageSource:
        """Some of the images as the programs take them."""
        places, names = [self.places[i] for i in chosen], [self.names[i] for i in chosen]
        return ImageSource(self.root, split, places, self.labels[chosen], names, self.classes)

    def without(self, left_out: Sequence[int]) -> Labelled:
        """The same data without some images; classes stay."""
        keep = np.setdiff1d(np.arange(len(self)), np.asarray(left_out, np.int64))
        return Labelled(
            self.root,
            [self.places[i] for i in keep],
            [self.names[i] for i in keep],
            self.labels[keep],
            self.classes,
            None if self.split is None else self.split[keep],
            list(self.notes),
            self.kind,
        )


def find_labelled(data: Path, least: int = 2, *, judging: bool = False) -> Labelled:
    """The images of a folder or table.

    Args:
        data: what the person named.
        least: classes that there must be.
        judging: for a finished model: with the images of the split test, and no class needs a training image.

    Raises:
        InputError: when there are none, less than two classes, or a layout that can be read in two ways.
    """
    if data.is_file():
        if data.suffix.lower() not in (".csv", ".tsv"):
            raise InputError(f"{data} is neither a folder nor a CSV table.", remedy=f"give {_LAYOUTS}")
        found = _from_table(data, judging)
    elif not data.is_dir():
        raise InputError(f"The data folder {data} does not exist.", remedy=f"give {_LAYOUTS}")
    elif any(_sharded(data, name) for name in (_splits(True) if judging else ("train",))):
        found = _from_shards(data, judging)
    else:
        found = _from_folders(data, judging)
    if len(found.classes) < least:
        raise InputError(
            f"There is only one class in {data}: {found.classes[0]}.",
            found=f"{len(found)} images",
            remedy="sort the images into at least two class folders; for no classes at all: cast-train pretrain",
        )
    return found


def _splits(judging: bool) -> dict[str, int]:
    """Names of splits that are looked at, and their parts."""
    return {"train": TRAIN, **dict.fromkeys(VALIDATION, VAL), **({"test": TEST} if judging else {})}


def _sharded(data: Path, split: str) -> bool:
    return any(data.glob(f"{split}-*.tar"))


def folders_in(folder: Path) -> list[Path]:
    """Folders inside, sorted by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(path))


def visible_images(folder: Path) -> list[Path]:
    """Images of a folder and of the folders inside, without hidden files."""
    return [path for path in images_in(folder, deep=True) if is_visible(path, folder)]


def is_visible(path: Path, folder: Path) -> bool:
    """Whether neither a file nor a folder on the way to it is hidden."""
    return not any(map(_hidden_name, path.relative_to(folder).parts))


def _hidden(path: Path) -> bool:
    return _hidden_name(path.name)


def _hidden_name(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _from_folders(data: Path, judging: bool) -> Labelled:
    folders = folders_in(data)
    names = {folder.name.lower(): folder for folder in folders}
    whole = "train" in names and bool(folders_in(names["train"]))  # otherwise "train" is a class, like "car"
    if judging and names and names.keys() <= _splits(True).keys():
        whole = all(folders_in(folder) for folder in folders)
    if whole:
        judged = [names[name] for name in VALIDATION if name in names]
        if len(judged) > 1:
            raise InputError(
                f"{data} has {' and '.join(folder.name + '/' for folder in judged)}: which one judges?",
                remedy="keep one of them beside train/",
            )
        places = {names[name]: part for name, part in _splits(judging).items() if name in names}
        return _from_splits(data, places, judging)
    if not folders:
        here = len([path for path in data.iterdir() if is_image(path)])
        raise InputError(
            f"There are no class folders in {data}.",
            found=f"{here} images without a class" if here else "no folder",
            remedy=f"give {_LAYOUTS}; without classes: cast-train pretrain",
        )
    loose = sum(is_image(path) for path in data.iterdir() if not _hidden(path))
    notes = [f"images beside the class folders are left out ({loose})"] if loose else []
    return _collect(data, [(folder, TRAIN) for folder in folders], notes, "class folders", judging)


def _from_splits(data: Path, places: dict[Path, int], judging: bool) -> Labelled:
    folders = [(folder, part) for place, part in places.items() for folder in folders_in(place)]
    notes = []
    if not judging:
        trained = {folder.name for folder, part in folders if part == TRAIN}
        unknown = sorted({folder.name for folder, _ in folders} - trained)
        if unknown:
            val = next(place.name for place, part in places.items() if part == VAL)
            raise InputError(
                f"{len(unknown)} classes of {val}/ are not in train/: {', '.join(unknown[:6])}.",
                remedy="add training images of them, or remove the folders",
            )
    others = sorted(path.name for path in folders_in(data) if path not in places and any(folders_in(path) or []))
    if others:
        notes.append(f"{', '.join(name + '/' for name in others)} is not used{'' if judging else ' in training'}")
    kind = f"{' and '.join(place.name + '/' for place in places)} of class folders"
    found = _collect(data, folders, notes, kind, judging)
    if not judging and found.split is None and len(places) > 1:
        found.notes.append("the validation folder holds no images, so a split is made")
    return found


def _collect(data: Path, folders: list[tuple[Path, int]], notes: list[str], kind: str, judging: bool) -> Labelled:
    found = [(folder, part, visible_images(folder)) for folder, part in folders]
    empty = [folder for folder, _, files in found if not files]
    if empty:
        listed = ", ".join(str(folder.relative_to(data)) for folder in empty[:6])
        notes.append(f"class folders without images are left out ({len(empty)}): {listed}")
    classes = sorted({folder.name for folder, part, files in found if files and (judging or part == TRAIN)})
    if not classes:
        raise InputError(f"There are no images in {data}.", remedy=f"give {_LAYOUTS}")
    lost = sorted({folder.name for folder, _, files in found if files} - set(classes))
    if lost:
        raise InputError(
            f"The classes {', '.join(lost[:6])} have validation images and no training image.",
            remedy="add training images, or remove them from the validation folder",
        )
    number = {name: label for label, name in enumerate(classes)}
    places, names, labels, parts = [], [], [], []
    for folder, part, files in found:
        for path in files:
            places.append((str(path), -1, 0))
            names.append(str(path.relative_to(data)))
            labels.append(number[folder.name])
            parts.append(part)
    return Labelled(data, places, names, np.array(labels, np.int64), classes, _split(parts), notes, kind)


def _split(parts: Sequence[int]) -> npt.NDArray[np.int8] | None:
    """`Labelled.split` of the part of each image."""
    return np.array(parts, np.int8) if any(part != TRAIN for part in parts) else None


def _from_table(table: Path, judging: bool) -> Labelled:
    """Lines of path,class[,split]; paths are relative to the table's folder. A header line is optional."""
    delimiter = "\t" if table.suffix.lower() == ".tsv" else ","
    rows = [[cell.strip() for cell in row] for row in read_csv(table, delimiter) if any(row)]
    if rows and not is_image(rows[0][0]) and not (table.parent / rows[0][0]).is_file():
        rows = rows[1:]  # a header
    if not rows:
        raise InputError(f"{table} names no image.", remedy="one line an image: path,class")
    root, missing = table.parent, []
    places, names, given, parts = [], [], [], []
    for line, row in enumerate(rows, 1):
        if len(row) not in (2, 3) or not row[0] or not row[1]:
            raise InputError(
                f"Line {line} of {table} (without the header) is not path,class or path,class,split.",
                found=",".join(row),
                remedy="separate the columns by commas, not semicolons"
                if len(row) == 1 and ";" in row[0]
                else "one line an image; put quotes around names with a comma",
            )
        path = root / row[0]
        if not path.is_file():
            missing.append(row[0])
        places.append((str(path), -1, 0))
        names.append(row[0])
        given.append(row[1])
        parts.append(row[2].lower() if len(row) == 3 else "")
    if missing:
        raise InputError(
            f"{len(missing)} images of {table} do not exist, first {missing[0]}.",
            remedy=f"the first column has paths, relative to {root.resolve()} or absolute; the second one classes",
        )
    twice = len(names) - len(set(names))
    if twice:
        raise InputError(f"{table} names {twice} images twice.", remedy="keep one line an image")
    known = {"": TRAIN, **_splits(judging)}
    unknown = sorted(set(parts) - set(known) - {"test"})
    if unknown:
        raise InputError(f"{table} has the unknown split {unknown[0]!r}.", remedy="use train, val and test")
    used = [at for at, part in enumerate(parts) if part in known]
    unused = len(parts) - len(used)
    notes = [f"images of the split test are not used in training ({unused})"] if unused else []
    classes = sorted({given[at] for at in used if judging or known[parts[at]] == TRAIN})
    lost = sorted({given[at] for at in used} - set(classes))
    if lost or not classes:
        raise InputError(
            f"{len(lost)} classes have no training image: {', '.join(lost[:6])}."
            if lost
            else f"{table} has no training image.",
            remedy="give some of their images the split train",
        )
    number = {name: label for label, name in enumerate(classes)}
    return Labelled(
        root,
        [places[at] for at in used],
        [names[at] for at in used],
        np.array([number[given[at]] for at in used], np.int64),
        classes,
        _split([known[parts[at]] for at in used]),
        notes,
        f"the table {table.name}",
    )


def _from_shards(data: Path, judging: bool) -> Labelled:
    found = {part: open_source(data, name) for name, part in _splits(judging).items() if _sharded(data, name)}
    parts = list(found.values())
    labels = np.concatenate([part.labels for part in parts])
    classes = parts[0].classes
    if int(labels.max()) >= len(classes):
        raise InputError(
            f"The shards have label {int(labels.max())} and only {len(classes)} classes are known.",
            remedy="add the missing lines to classes.txt",
        )
    return Labelled(
        data,
        [part.place(i) for part in parts for i in range(len(part))],
        [name for part in parts for name in part.names],
        labels,
        list(classes),
        _split([number for number, part in found.items() for _ in range(len(part))]),
        [],
        "tar shards",
    )
