"""A prepared data set as one small file to bring to another machine: `prepare_data.py pack`, and the way back.

The file is a .tar.xz of a folder in the layout that all loaders read, so nothing else knows of it. Images to train on
are encoded again, and of each class a share of them is left out where the file would become too large; of the
teacher's scores the highest of each image are kept. Thumbnails to calibrate on and to test with stay as they are,
photographs become smaller: what is measured on them is near to what the whole data set gives, and not the same.
"""

from __future__ import annotations

import json
import lzma
import shutil
import tarfile
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError, RecipeError
from cast_sdk.runtime.commands.common import FiniteRange, OrdinaryPath
from cast_sdk.system.files import atomic_write, check_writable, read_json, sha256
from cast_sdk.training.data.prepare.bundled import FOLDER, write_images

if TYPE_CHECKING:
    from cast_sdk.training.data.sources import ImageSource

RECORD = "packed.json"  # in the folder: how it was packed
SAMPLE = 2000  # training images that tell how large all will be
_ATTEMPTS = 4
_UNPACKING = ".unpacking-"  # how folders begin that are not whole yet
_AGAIN = "copy it again, or write it again: prepare_data.py pack"
Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """How a data set is packed.

    Attributes:
        side, quality: of images to train on; smaller ones keep their size, WebP's quality.
        shown_side, shown_quality: of photographs to calibrate on and to test with.
        tests: images of each test split.
        classes: of the teacher's scores of each image that are kept.
        region_quality: of the photographs with regions.
    """

    side: int = 48
    quality: int = 30
    shown_side: int = 128
    shown_quality: int = 75
    tests: int = 2000
    classes: int = 8
    region_quality: int = 60


_QUALITY = click.IntRange(1, 100)


@click.command("pack")
@click.option("--data", type=FOLDER, required=True, help="Folder that bundled, soft-labels and regions have filled.")
@click.option("--out", type=OrdinaryPath(path_type=Path, dir_okay=False), required=True, help="File to write: .tar.xz.")
@click.option("--megabytes", type=FiniteRange(0, 1e6, min_open=True), default=48.0, show_default=True,
              help="The file is no larger: where it would be, images of each class are left out.")  # fmt: skip
@click.option(
    "--side", type=click.IntRange(8, 4096), default=Packing.side, show_default=True, help="Pixels of training images."
)
@click.option(
    "--quality", type=_QUALITY, default=Packing.quality, show_default=True, help="Quality of training images (WebP)."
)
@click.option(
    "--tests", type=click.IntRange(1), default=Packing.tests, show_default=True, help="Images of each test split."
)
@click.option(
    "--classes", type=click.IntRange(1), default=Packing.classes, show_default=True,
    help="Classes whose scores by the teacher are kept for each image.",
)  # fmt: skip
def pack_command(data: Path, out: Path, megabytes: float, side: int, quality: int, tests: int, classes: int) -> None:
    """A data set as one small file for another machine: images encoded again, training/bundled.py reads it."""
    from cast_sdk.training.data.teacher import others
    from cast_sdk.training.engine.launch import errors_for_people

    with errors_for_people():
        if out.exists():
            raise InputError(f"{out} is there already.", remedy="give --out another name, or move the file away")
        check_writable(out)
        chosen = Packing(side=side, quality=quality, tests=tests, classes=classes)
        record = pack(data, out, round(megabytes * 1e6), chosen)
        click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {summary(record)}")
        without_labels = sorted(path.name for path in data.glob(f"{others.SPLIT}-*.tar"))
        if without_labels:
            click.echo(f"left out, the images without labels: {', '.join(without_labels)}")


COMMANDS = (pack_command,)


def summary(record: dict[str, Any]) -> str:
    """What a packed file holds, for people."""
    kept = ", ".join(f"{split} {count:,} of {record['of'][split]:,}" for split, count in record["images"].items())
    return f"images: {kept}; training images at {record['side']} px, WebP quality {record['quality']}"


def pack(data: Path, out: Path, limit: int, packing: Packing) -> dict[str, Any]:
    """Write the packed file of at most `limit` bytes; returns its record.

    Raises:
        InputError: `data` lacks the splits "train" and "val", or `classes.txt`.
        RecipeError: not one training image of each class fits.
    """
    from cast_sdk.training.data import region_file
    from cast_sdk.training.data.sources import open_source

    source = open_source(data, "train")
    if not (data / "classes.txt").is_file():
        raise InputError(f"{data} has no classes.txt.", remedy="prepare_data.py bundled")
    with tempfile.TemporaryDirectory(prefix="cast-pack-") as temporary:
        folder, file = Path(temporary) / "set", Path(temporary) / "set.tar.xz"
        folder.mkdir()
        record: dict[str, Any] = {**asdict(packing), "images": {"train": 0}, "of": {"train": len(source)}}
        shutil.copyfile(data / "classes.txt", folder / "classes.txt")
        for split in ("val", *test_splits(data)):
            shown = open_source(data, split)
            chosen = evenly(shown.labels, 1.0 if split == "val" else packing.tests / len(shown))
            _write_shown(folder, shown, chosen, packing)
            record["images"][split], record["of"][split] = len(chosen), len(shown)
        if (data / region_file.FILE).exists():
            images, maps = region_file.read_regions(data / region_file.FILE)
            encoded = [webp(image, max(image.shape), packing.region_quality) for image in images]
            region_file.write_encoded(folder / region_file.FILE, encoded, maps)
        fixed = archive(folder, file)  # whatever the number of training images is
        chosen = evenly(source.labels, SAMPLE / len(source))
        _write_training(folder, source, chosen, packing)
        each = (archive(folder, file) - fixed) / len(chosen)
        share = (limit - fixed) / (each * len(source))
        for _ in range(_ATTEMPTS):
            if share * np.bincount(source.labels).max() < 1:
                break
            chosen = evenly(source.labels, share)
            _write_training(folder, source, chosen, packing)
            record["images"]["train"] = len(chosen)
            (folder / RECORD).write_text(json.dumps(record, indent=1))
            size = archive(folder, file)
            if size <= limit:
                with atomic_write(out) as target:
                    shutil.copyfile(file, target)
                return record
            share = min(1.0, share) * 0.99 * (limit - fixed) / (size - fixed)
    raise RecipeError(
        f"The data set cannot be packed into {limit / 1e6:.1f} MB.",
        found=f"{fixed / 1e6:.1f} MB without images to train on, {each:.0f} bytes for each of those",
        remedy="raise --megabytes, or lower --tests, --quality or --side",
    )


def test_splits(data: Path) -> list[str]:
    """The splits of a folder of shards that have labels to judge by, besides "train" and "val"."""
    from cast_sdk.training.data.teacher import others

    return sorted({path.name.rpartition("-")[0] for path in data.glob("*-*.tar")} - {"train", "val", others.SPLIT})


def evenly(labels: npt.NDArray[np.int64], share: float) -> Indices:
    """Positions of a share of each class, at least one image of each, spread over its images; in order."""
    chosen = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        count = min(len(places), max(1, int(len(places) * share)))
        chosen.append(places[np.arange(count) * len(places) // count])
    return np.sort(np.concatenate(chosen))


def webp(image: Pixels, side: int, quality: int) -> bytes:
    """An RGB image uint8 [h, w, 3] as WebP; one that is larger than `side` becomes `side` x `side` pixels."""
    import cv2

    if max(image.shape[:2]) > side:
        image = cast("Pixels", cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))
    return bytes(cv2.imencode(".webp", image[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])[1])


def _write_training(folder: Path, source: ImageSource, chosen: Indices, packing: Packing) -> None:
    """The shard of training images, and the teacher's scores of the same images in the same order."""
    from cast_sdk.training.data.teacher import soft_labels
    from cast_sdk.training.engine.recipe.settings import Teacher

    images = ((webp(_pixels(source, i), packing.side, packing.quality), int(source.labels[i])) for i in chosen)
    write_images(folder / "train-00.tar", images, "webp")
    if (source.root / soft_labels.FILE).exists():
        scores = soft_labels.teacher_scores(source.root, source)[chosen]
        np.save(folder / soft_labels.FILE, soft_labels.strongest(scores, packing.classes, Teacher.temperature))


def _write_shown(folder: Path, source: ImageSource, chosen: Indices, packing: Packing) -> None:
    """A shard of images to judge by: thumbnails as they are, photographs smaller."""

    def smaller(index: int) -> bytes:
        data, pixels = source.read(index), _pixels(source, index)
        return (
            data if max(pixels.shape) <= packing.shown_side else webp(pixels, packing.shown_side, packing.shown_quality)
        )

    write_images(folder / f"{source.split}-00.tar", ((smaller(i), int(source.labels[i])) for i in chosen))


def _pixels(source: ImageSource, index: int) -> Pixels:
    from cast_sdk.training.data.dataset import decode

    return decode(source.read(index), source.names[index]).permute(1, 2, 0).numpy()


def archive(folder: Path, file: Path) -> int:
    """Write the files of `folder` as a .tar.xz; equal files give equal bytes. Returns its size."""
    with tarfile.open(file, "w:xz") as tar:
        for path in sorted(folder.iterdir()):
            entry = tarfile.TarInfo(f"set/{path.name}")
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(entry, content)
    return file.stat().st_size


def unpack(file: Path, folder: Path) -> None:
    """The data set of a packed file in `folder`, which appears whole; one that was unpacked from it before stays.

    No other process may unpack beside `folder` at the same time: what one that was killed left there is removed.

    Raises:
        InputError: the file is damaged or none of `pack`.
        RecipeError: `folder` holds something else.
    """
    from cast_sdk.training.engine import provenance

    for left in folder.parent.glob(f"{_UNPACKING}*"):
        shutil.rmtree(left)
    made_by = {"packed": sha256(file)}
    if folder.exists():
        if provenance.read(folder / provenance.FILE) != made_by:
            raise RecipeError(f"{folder} holds something else than {file}.", remedy="choose another --out")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_UNPACKING, dir=folder.parent) as temporary:
        new = Path(temporary) / "set"
        new.mkdir()
        try:
            with lzma.open(file) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    name = member.name.removeprefix("set/")
                    content = tar.extractfile(member) if member.isfile() else None
                    if content is None or name in ("", ".", "..") or name != Path(name).name:
                        raise InputError(f"{file} holds {member.name!r}, which pack does not write.", remedy=_AGAIN)
                    with (new / name).open("wb") as target:
                        shutil.copyfileobj(content, target)
                # The checksum is at the end, and tarfile stops before: at zeros, or at what it cannot read.
                while rest := stream.read(1 << 20):
                    if rest.strip(b"\0"):
                        raise tarfile.ReadError("there is more behind its last file")
        except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
            raise InputError(f"{file} is damaged, or no file of pack.", found=str(error), remedy=_AGAIN) from error
        provenance.write(new / provenance.FILE, made_by)
        new.rename(folder)


def record_of(folder: Path) -> dict[str, Any] | None:
    """How the data set in a folder was packed; None for one that was not."""
    return read_json(folder / RECORD) if (folder / RECORD).is_file() else None
