"""Photographs without labels for the bundled model: those in which a teacher of ImageNet's classes sees one of ours.

The command belongs to `prepare_data.py`. It adds shards to a data set that has a teacher's scores already.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from cast_sdk.decoding.reader import decode, read_image
from cast_sdk.errors import InputError, RecipeError
from cast_sdk.images import is_image
from cast_sdk.runtime.commands.common import FiniteRange
from cast_sdk.system.files import atomic_write
from cast_sdk.training.data import soft_labels
from cast_sdk.training.data.prepare.bundled import (
    FILE,
    FOLDER,
    PHOTO_SIDE,
    imagenet_columns,
    jpeg,
    open_teacher,
    write_images,
)

PHOTOGRAPHS, THUMBNAILS = "train-photographs.tar", "train-thumbnails.tar"  # behind train-00.tar, in this order
THUMBNAIL = 64
SMALLEST = 120  # pixels of a photograph's shorter side
ALIKE = 24  # of a print's 256 bits, that two pictures of one scene may differ by
PART, SMALLEST_PART = 0.65, 110  # of a photograph that is not named as a whole; pixels
_BATCH = 32

Print = npt.NDArray[np.bool_]


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
@click.option("--copies", type=click.IntRange(1, 100), default=2, show_default=True, help="Of each in an epoch.")
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
        for name in (PHOTOGRAPHS, THUMBNAILS):
            if (data / name).exists():
                raise InputError(
                    f"{data} holds photographs already ({name}).",
                    remedy="make the data set again in another folder to choose others",
                )
        source = open_source(data, "train")
        scores = [soft_labels.teacher_scores(data, source)]
        wnids = ImageNetInfo().label_names()
        columns = imagenet_columns(data / "classes.txt", wnids)
        ask = open_teacher(teacher, range(len(wnids)), (224, 224), threads)
        files = [path for folder in folders for path in sorted(folder.rglob("*")) if is_image(path)]
        unreadable: list[Path] = []
        with click.progressbar(files, label="photographs", show_pos=True) as bar:
            seen = named(_photographs(bar, unreadable), ask, columns, sure, parts)
        if unreadable:
            click.echo(f"left out because they cannot be read: {len(unreadable)}, such as {unreadable[0]}")
        tests = [print_of(read_image(path)) for folder in apart for path in sorted(folder.rglob("*")) if is_image(path)]
        tests += [print_of(decode(split.read(i), split.names[i])) for split in _tests(data) for i in range(len(split))]
        chosen = choose(seen, most, np.array(tests).reshape(-1, 256))
        if not chosen:
            raise RecipeError(
                f"The teacher names no class of the data in these {len(files)} images.",
                remedy="give photographs of such things, or a lower --sure",
            )
        shards = {PHOTOGRAPHS: [(one.encoded, one.label) for one in chosen] * copies}
        scores += [np.stack([one.scores for one in chosen])] * copies
        if thumbnails:
            large = [
                (i, image)
                for i in range(len(source))
                if len(image := decode(source.read(i), source.names[i])) > THUMBNAIL
            ]
            shards[THUMBNAILS] = [(jpeg(image, THUMBNAIL), int(source.labels[i])) for i, image in large]
            scores.append(scores[0][[i for i, _ in large]])
        for name, images in shards.items():
            with atomic_write(data / name) as temporary:
                write_images(temporary, images)
            click.echo(f"{name}: {len(images):,} images")
        with atomic_write(data / soft_labels.FILE) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate(scores))
        click.echo(f"{len({one.label for one in chosen})} classes have photographs")


COMMANDS = (photographs_command,)


class Named:
    """A photograph that the teacher names.

    Attributes:
        probability: of its class among all classes of the teacher.
        label: its class, as the data set numbers them.
        scores: of the data set's classes, float16 [classes].
        print: see `print_of`.
        encoded: JPEG of PHOTO_SIDE x PHOTO_SIDE pixels.
    """

    def __init__(
        self, probability: float, label: int, scores: npt.NDArray[np.float16], image: npt.NDArray[np.uint8]
    ) -> None:
        self.probability, self.label, self.scores = probability, label, scores
        self.print, self.encoded = print_of(image), jpeg(image, PHOTO_SIDE)


def named(
    photographs: Iterable[npt.NDArray[np.uint8]], ask: Any, columns: Sequence[int], sure: float, parts: bool = False
) -> list[Named]:
    """The photographs whose likeliest class is one of `columns`.

    Args:
        photographs: BGR, uint8 [h, w, 3].
        ask: function of a list of RGB images that gives scores of all classes, [images, all classes].
        columns: which of those classes are ours.
        sure: least probability of that class.
        parts: ask about a random square of the others, too, and take that in place of the whole.
    """
    found: list[Named] = []
    random = np.random.default_rng(0)
    for batch in _batches(photographs):
        seen = _judged(batch, ask, columns, sure)
        found += [one for one in seen if one]
        if parts:
            left = [image for image, one in zip(batch, seen, strict=True) if one is None]
            squares = [square for image in left if len(square := part_of(image, random)) >= SMALLEST_PART]
            found += [one for one in _judged(squares, ask, columns, sure) if one]
    return found


def part_of(image: npt.NDArray[np.uint8], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A square from the inner part of an image [h, w, 3], with PART of its shorter side."""
    height, width = image.shape[:2]
    side = int(PART * min(height, width))
    top, left = (int((whole - side) * random.uniform(0.2, 0.8)) for whole in (height, width))
    return image[top : top + side, left : left + side]


def _judged(
    images: Sequence[npt.NDArray[np.uint8]], ask: Any, columns: Sequence[int], sure: float
) -> list[Named | None]:
    if not images:
        return []
    ours = {column: number for number, column in enumerate(columns)}
    scores = np.asarray(ask([image[:, :, ::-1] for image in images]), np.float32)
    odds = np.exp(scores - scores.max(1, keepdims=True))
    probability = odds / odds.sum(1, keepdims=True)
    judged: list[Named | None] = []
    for image, row, shares in zip(images, scores, probability, strict=True):
        best = int(shares.argmax())
        known = best in ours and shares[best] >= sure
        own = row[list(columns)].astype(np.float16)
        judged.append(Named(float(shares[best]), ours[best], own, image) if known else None)
    return judged


def _batches(photographs: Iterable[npt.NDArray[np.uint8]]) -> Iterator[list[npt.NDArray[np.uint8]]]:
    photographs = iter(photographs)
    while batch := list(itertools.islice(photographs, _BATCH)):
        yield batch


def choose(seen: Sequence[Named], most: int, tests: npt.NDArray[np.bool_]) -> list[Named]:
    """The surest photographs of each class, `most` at most, without copies of one another and of `tests` [N, 256]."""
    taken: dict[int, list[Named]] = {}
    for one in sorted(seen, key=lambda one: -one.probability):
        same = taken.setdefault(one.label, [])
        if len(same) == most or alike(one.print, tests) or alike(one.print, np.array([other.print for other in same])):
            continue
        same.append(one)
    return [one for label in sorted(taken) for one in taken[label]]


def print_of(image: npt.NDArray[np.uint8]) -> Print:
    """256 bits that hardly change when a picture is scaled or encoded again: where it gets brighter to the right.

    Args:
        image: BGR, uint8 [h, w, 3].
    """
    import cv2

    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (17, 16), interpolation=cv2.INTER_AREA)
    found: Print = (small[:, 1:] > small[:, :-1]).ravel()
    return found


def alike(print_: Print, others: npt.NDArray[np.bool_]) -> bool:
    """Whether a print differs from one of others [N, 256] by ALIKE bits or fewer."""
    return bool(len(others)) and bool(((print_ != others).sum(1) <= ALIKE).any())


def _photographs(files: Iterable[Path], unreadable: list[Path]) -> Iterator[npt.NDArray[np.uint8]]:
    """Those that are large enough; files that cannot be read are noted."""
    for path in files:
        try:
            image = read_image(path)
        except InputError:
            unreadable.append(path)
            continue
        if min(image.shape[:2]) >= SMALLEST:
            yield image


def _tests(data: Path) -> Iterator[Any]:
    from cast_sdk.training.data.sources import open_source

    for split in ("val", "tiny", "imagenette"):
        if list(data.glob(f"{split}-*.tar")):
            yield open_source(data, split)
