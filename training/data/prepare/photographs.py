"""Photographs without labels for the bundled model: those in which a teacher of ImageNet's classes sees one of ours.

The command belongs to `prepare_data.py`. It adds shards to a data set that has a teacher's scores already.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt

from cast_sdk.decoding.reader import decode, read_image
from cast_sdk.errors import InputError, RecipeError
from cast_sdk.images import images_in
from cast_sdk.runtime.commands.common import FiniteRange
from cast_sdk.system.files import atomic_write, check_writable
from cast_sdk.system.signals import uninterrupted
from cast_sdk.training.data.prepare.bundled import (
    FILE,
    FOLDER,
    PHOTO_SIDE,
    imagenet_columns,
    jpeg,
    open_teacher,
    write_images,
)
from cast_sdk.training.data.teacher import others as unlabelled
from cast_sdk.training.data.teacher import soft_labels

if TYPE_CHECKING:
    from cast_sdk.training.data.sources import ImageSource

PHOTOGRAPHS, THUMBNAILS = "train-photographs.tar", "train-thumbnails.tar"  # behind train-00.tar, in this order
OTHERS = f"{unlabelled.SPLIT}-00.tar"
THUMBNAIL = 64
SMALLEST = 120  # pixels of a photograph's shorter side
SIDE = 224  # pixels that the teacher sees
PRINT = 256  # numbers of a print
EVEN = 3  # grey levels: smaller steps may be noise
ALIKE = 0.1  # share of the steps that two pictures of one scene may differ by
PART, SMALLEST_PART = 0.65, 110  # of a photograph that is not named as a whole; pixels
_BATCH = 32

Print = npt.NDArray[np.float32]


@click.command("photographs")
@click.option("--data", type=FOLDER, required=True, help="Folder that bundled and soft-labels have filled.")
@click.option("--teacher", type=FILE, required=True, help="The network file of soft-labels.")
@click.option("--images", "folders", type=FOLDER, multiple=True, required=True, help="Photographs. Repeatable.")
@click.option("--apart", type=FOLDER, multiple=True, help="Photographs to test with: copies of them are not taken. "
              "Repeatable.")  # fmt: skip
@click.option("--sure", type=FiniteRange(0, 1), default=0.3, show_default=True,
              help="Least probability of the class that the teacher names.")  # fmt: skip
@click.option("--most", type=click.IntRange(1), default=260, show_default=True,
              help="Photographs of one class: the surest.")  # fmt: skip
@click.option("--others", type=click.IntRange(0), default=0, show_default=True,
              help="Also take so many of each class that the teacher knows, at most, for teacher.others.")  # fmt: skip
@click.option(
    "--copies", type=click.IntRange(1, 100), default=2, show_default=True, help="Of each that is named, in an epoch."
)
@click.option(
    "--thumbnails", is_flag=True, help="Also add the photographs that are in DATA already, as thumbnails of 64 pixels."
)
@click.option("--parts", is_flag=True, help="Ask about a part of a photograph, too, where the whole is not named.")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, show_default=True, help="0: all cores.")
def photographs_command(
    data: Path,
    teacher: Path,
    folders: tuple[Path, ...],
    apart: tuple[Path, ...],
    sure: float,
    most: int,
    others: int,
    copies: int,
    thumbnails: bool,
    parts: bool,
    threads: int,
) -> None:
    """Photographs that the teacher names, as further training images: its name and its scores label them."""
    from timm.data import ImageNetInfo

    from cast_sdk.training.data.sources import open_source
    from cast_sdk.training.engine.launch import errors_for_people

    with errors_for_people():
        check_order(data)
        source = open_source(data, "train")
        scores = [soft_labels.teacher_scores(data, source)]
        wnids = ImageNetInfo().label_names()
        columns = imagenet_columns(data / "classes.txt", wnids)
        for name in (PHOTOGRAPHS, THUMBNAILS, soft_labels.FILE, OTHERS, unlabelled.FILE):
            check_writable(data / name)
        files = [path for folder in folders for path in images_in(folder, deep=True)]
        if not files:
            raise InputError("There is no image to ask the teacher about.", remedy="--images FOLDER of photographs")
        tests = [print_of(read_image(path)) for folder in apart for path in images_in(folder, deep=True)]
        tests += [print_of(decode(split.read(i), split.names[i])) for split in _tests(data) for i in range(len(split))]
        ask = open_teacher(teacher, range(len(wnids)), (SIDE, SIDE), threads)
        unreadable: list[Path] = []
        small: list[Path] = []
        with click.progressbar(files, label="photographs", show_pos=True) as bar:
            seen = judged(_photographs(bar, unreadable, small), ask, columns, sure, parts, others > 0)
        if unreadable:
            click.echo(f"left out because they cannot be read: {len(unreadable)}, such as {unreadable[0]}")
        if small:
            click.echo(f"left out because a side has fewer than {SMALLEST} pixels: {len(small)}, such as {small[0]}")
        known = [one for one in seen if one.named]
        test_prints = np.array(tests, np.float32).reshape(-1, PRINT)
        chosen = choose(known, most, test_prints)
        if not chosen:
            raise RecipeError(
                "No photograph is left to train on.",
                found=f"{len(files)} files, in {len(known)} of which the teacher sees a class of the data"
                + (", all of them copies of test images" if known else ""),
                remedy=f"give photographs of such things, of {SMALLEST} pixels at least, or a lower --sure",
            )
        taken = chosen * copies
        shards = {PHOTOGRAPHS: [(one.encoded, one.label) for one in taken]}
        scores.append(np.stack([one.scores[: len(columns)] for one in taken]))
        if thumbnails:
            again = dict(_thumbnails(source))
            shards[THUMBNAILS] = [(encoded, int(source.labels[i])) for i, encoded in again.items()]
            scores.append(scores[0][list(again)])
        tables = {soft_labels.FILE: np.concatenate(scores)}
        if others:
            rest = assorted(seen, others, test_prints)
            shards[OTHERS] = [(one.encoded, one.label) for one in rest]
            tables[unlabelled.FILE] = np.stack([one.scores for one in rest])
        with uninterrupted(), contextlib.ExitStack() as files_of_one_state:  # all take their names at the end, together
            for name, table in tables.items():
                with files_of_one_state.enter_context(atomic_write(data / name)).open("wb") as file:
                    np.save(file, table)
            for name, images in shards.items():
                write_images(files_of_one_state.enter_context(atomic_write(data / name)), images)
        for name, images in shards.items():
            click.echo(f"{name}: {len(images):,} images")
        click.echo(
            f"{len(known):,} of {len(files):,} are named; {len(chosen):,} of them, of "
            f"{len({one.label for one in chosen})} classes, are taken: no copies, at most {most} of a class"
        )


COMMANDS = (photographs_command,)


def check_order(data: Path) -> None:
    """Refuse a data set whose training images would not keep their numbers when shards are added.

    Raises:
        InputError: it holds photographs already, has no shards, or one whose name sorts behind the new ones.
    """
    ours = (PHOTOGRAPHS, THUMBNAILS, OTHERS, unlabelled.FILE)
    for name in ours:
        if (data / name).exists():
            raise InputError(
                f"{data} holds photographs already ({name}).",
                remedy=f"to choose others, remove {', '.join(ours)} and run soft-labels again",
            )
    shards = sorted(path.name for path in data.glob("train-*.tar"))
    if not shards:
        raise InputError(f"{data} has no shards of training images.", remedy="prepare_data.py bundled --out DATA")
    if shards[-1] > PHOTOGRAPHS:
        raise InputError(
            f"The shard {shards[-1]} would come behind the photographs, and its images would change their numbers.",
            found=f"{data}: shards are read in the order of their names",
            remedy="give it a number, as in train-01.tar, and run soft-labels again",
        )


@dataclass(frozen=True)
class Judged:
    """A photograph that the teacher was asked about.

    Attributes:
        named: its likeliest class among all classes of the teacher is one of the data set's, and sure enough.
        probability: of its class among all classes of the teacher.
        label: the likeliest of the data set's classes, as the data set numbers them.
        scores: of all classes of the teacher, the data set's first and in its order: float16 [all classes].
        print: of the whole photograph, see `print_of`.
        encoded: the photograph, or the part of it that is named: JPEG of PHOTO_SIDE x PHOTO_SIDE pixels.
    """

    named: bool
    probability: float
    label: int
    scores: npt.NDArray[np.float16]
    print: Print
    encoded: bytes


def judged(
    photographs: Iterable[npt.NDArray[np.uint8]],
    ask: Any,
    columns: Sequence[int],
    sure: float,
    parts: bool = False,
    others: bool = False,
) -> list[Judged]:
    """The photographs whose likeliest class is one of `columns`, and on request the others.

    Args:
        photographs: BGR, uint8 [h, w, 3].
        ask: function of a list of RGB images that gives scores of all classes, [images, all classes].
        columns: which of those classes are ours.
        sure: least probability of that class.
        parts: ask about a random square of the others, and take that in place of the whole where it is named.
        others: return those that are not named, too.
    """
    found: list[Judged] = []
    random = np.random.default_rng(0)
    for batch in _batches(photographs):
        seen = _judged(batch, batch, ask, columns, sure, others)
        if parts:
            left = [i for i, one in enumerate(seen) if one is None or not one.named]
            squares = [(i, part_of(batch[i], random)) for i in left]
            squares = [(i, part) for i, part in squares if len(part) >= SMALLEST_PART]
            wholes = [batch[i] for i, _ in squares]
            asked = _judged([part for _, part in squares], wholes, ask, columns, sure, False)
            for (i, _), one in zip(squares, asked, strict=True):
                seen[i] = one or seen[i]
        found += [one for one in seen if one]
    return found


def part_of(image: npt.NDArray[np.uint8], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A square from the inner part of an image [h, w, 3], with PART of its shorter side."""
    height, width = image.shape[:2]
    side = int(PART * min(height, width))
    top, left = (int((whole - side) * random.uniform(0.2, 0.8)) for whole in (height, width))
    return image[top : top + side, left : left + side]


def _judged(
    images: Sequence[npt.NDArray[np.uint8]],
    wholes: Sequence[npt.NDArray[np.uint8]],
    ask: Any,
    columns: Sequence[int],
    sure: float,
    others: bool,
) -> list[Judged | None]:
    """What the teacher sees in images, which are `wholes` or parts of them; None of unnamed ones without `others`."""
    if not images:
        return []
    ours = {column: number for number, column in enumerate(columns)}
    scores = np.asarray(ask([image[:, :, ::-1] for image in images]), np.float32)
    order = [*columns, *(column for column in range(scores.shape[1]) if column not in ours)]
    odds = np.exp(scores - scores.max(1, keepdims=True))
    probability = odds / odds.sum(1, keepdims=True)
    found: list[Judged | None] = []
    for image, whole, row, shares in zip(images, wholes, scores, probability, strict=True):
        best = columns[int(row[list(columns)].argmax())]
        named = int(shares.argmax()) in ours and shares[best] >= sure
        if not (named or others):
            found.append(None)
            continue
        encoded, scored = jpeg(image, PHOTO_SIDE), row[order].astype(np.float16)
        found.append(Judged(bool(named), float(shares[best]), ours[best], scored, print_of(whole), encoded))
    return found


def _batches(photographs: Iterable[npt.NDArray[np.uint8]]) -> Iterator[list[npt.NDArray[np.uint8]]]:
    photographs = iter(photographs)
    while batch := list(itertools.islice(photographs, _BATCH)):
        yield batch


def choose(named: Sequence[Judged], most: int, tests: npt.NDArray[np.float32]) -> list[Judged]:
    """The surest photographs of each class, `most` at most, without copies of one another or of `tests` [N, PRINT]."""
    return _distinct(sorted(named, key=lambda one: -one.probability), lambda one: one.label, most, tests)


def assorted(seen: Sequence[Judged], most: int, tests: npt.NDArray[np.float32]) -> list[Judged]:
    """Any photographs of each class that the teacher knows, named or not: `most` at most, without copies as above."""
    order = np.random.default_rng(0).permutation(len(seen))
    return _distinct([seen[i] for i in order], lambda one: int(one.scores.argmax()), most, tests)


def _distinct(
    order: Sequence[Judged], class_of: Callable[[Judged], int], most: int, tests: npt.NDArray[np.float32]
) -> list[Judged]:
    taken: dict[int, list[Judged]] = {}
    for one in order:
        same = taken.setdefault(class_of(one), [])
        prints = np.array([other.print for other in same], np.float32).reshape(-1, PRINT)
        if len(same) < most and not alike(one.print, tests) and not alike(one.print, prints):
            same.append(one)
    return [one for number in sorted(taken) for one in taken[number]]


def print_of(image: npt.NDArray[np.uint8]) -> Print:
    """Where a picture gets brighter to the right, 1, or darker, -1; 0 where it is even: float32 [PRINT].

    It hardly changes when the picture is scaled or encoded again. Things that fill less than a tenth of an even ground
    have prints that are nearly the same.

    Args:
        image: BGR, uint8 [h, w, 3].
    """
    import cv2

    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (17, 16), interpolation=cv2.INTER_AREA)
    steps = np.diff(small.astype(np.int16), axis=1)
    return np.where(np.abs(steps) > EVEN, np.sign(steps), 0).astype(np.float32).ravel()


def alike(print_: Print, others: npt.NDArray[np.float32]) -> bool:
    """Whether a print has the same steps as one of others [N, PRINT], but for a share of ALIKE of both."""
    agreeing = others @ print_ + np.abs(others) @ np.abs(print_)
    return bool((agreeing >= (1 - ALIKE) * (np.abs(others).sum(1) + np.abs(print_).sum())).any())


def _thumbnails(source: ImageSource) -> Iterator[tuple[int, bytes]]:
    """Number and JPEG of the images that are larger than a thumbnail."""
    for index in range(len(source)):
        image = decode(source.read(index), source.names[index])
        if len(image) > THUMBNAIL:
            yield index, jpeg(image, THUMBNAIL)


def _photographs(files: Iterable[Path], unreadable: list[Path], small: list[Path]) -> Iterator[npt.NDArray[np.uint8]]:
    """Those that are large enough; the others are noted in the two lists."""
    for path in files:
        try:
            image = read_image(path)
        except InputError:
            unreadable.append(path)
            continue
        if min(image.shape[:2]) >= SMALLEST:
            yield image
        else:
            small.append(path)


def _tests(data: Path) -> Iterator[Any]:
    from cast_sdk.training.data.sources import open_source

    for split in ("val", "tiny", "imagenette"):
        if list(data.glob(f"{split}-*.tar")):
            yield open_source(data, split)
