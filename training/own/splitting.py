"""Which images judge: stratified by class, with copies of one image on the same side, and written down."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cast_sdk.system.files import atomic_write
from cast_sdk.training.own.classes.labelled import TEST, TRAIN, VAL, VALIDATION

SPLITS = ("train", "val")


def split_off(
    labels: npt.NDArray[np.integer], share: float, seed: int, groups: npt.NDArray[np.integer] | None = None
) -> npt.NDArray[np.int8]:
    """TRAIN or VAL for each image: int8 [N].

    Of each class about `share` of the images judge: at least one, and never all; a class of one image has none that
    judges. Images of one group stay together.

    Args:
        labels: class of each image, [N].
        share: of the images that judge, 0 to 1.
        seed: of the choice.
        groups: a number for each image, equal for copies of one; default: all different.
    """
    groups = np.arange(len(labels)) if groups is None else groups
    split = np.full(len(labels), TRAIN, np.int8)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        kinds, sizes = np.unique(groups[members], return_counts=True)
        if len(kinds) < 2:
            continue
        wanted = max(1.0, share * len(members))
        order = np.random.default_rng((seed, int(label))).permutation(len(kinds))
        before = np.concatenate([[0], np.cumsum(sizes[order])[:-1]])
        count = min(max(1, int((before + sizes[order] / 2 < wanted).sum())), len(kinds) - 1)
        split[members[np.isin(groups[members], kinds[order[:count]])]] = VAL
    return split


def part_named(name: str) -> int | None:
    """The part that a folder or file name such as "train", "val2017" or "instances_test" speaks of, or None."""
    words = re.findall("[a-z]+", name.lower())
    for part, known in ((TRAIN, ("train", "training")), (VAL, VALIDATION), (TEST, ("test", "testing"))):
        if any(word in known for word in words):
            return part
    return None


def settle(parts: Sequence[int | None]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int8] | None, list[str]]:
    """The split that names tell of: images of a test part are not used, and a split that is not whole is not taken.

    Args:
        parts: TRAIN, VAL, TEST or None of each image.

    Returns:
        The images to use, [M]; TRAIN or VAL of each of them, int8 [M], or None where a split is to be made; and what
        to tell a person.
    """
    everything = np.arange(len(parts))
    told = sum(part is not None for part in parts)
    if TRAIN not in parts:
        return everything, None, ["no name says train, so names do not make the split"] if told else []
    used = np.array([at for at in range(len(parts)) if parts[at] != TEST], np.intp)
    notes = [f"images of test are not used ({len(parts) - len(used)})"] if len(used) < len(parts) else []
    left = [parts[at] for at in used.tolist()]
    if None in left:
        notes.append(f"images outside of train and val ({left.count(None)}), so names do not make the split")
        return used, None, notes
    return used, np.array(left, np.int8) if VAL in left else None, notes


def copies(contents: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """A number for each image, the same for files of the same content: int64 [N]."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, at) for at, digest in enumerate(contents)], np.int64)


def note_on_copies(groups: npt.NDArray[np.int64]) -> list[str]:
    """What to tell of files with the same content, see `copies`."""
    extra = len(groups) - len(np.unique(groups))
    return [f"copies of other images ({extra}): they stay on one side of a split made here"] if extra else []


def digest(data: bytes) -> bytes:
    """What stands for the content of a file."""
    return hashlib.sha256(data).digest()[:16]


def write_split(path: Path, names: Sequence[str], classes: Sequence[str], split: npt.NDArray[np.int8]) -> None:
    """A table of path, class and split, which `cast-train classify` reads too."""
    write_rows(path, ("path", "class", "split"), zip(names, classes, (SPLITS[part] for part in split), strict=True))


def write_rows(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV file."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
