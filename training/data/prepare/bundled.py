"""The data of the bundled model: Tiny-ImageNet and Imagenette as shards, a teacher's soft labels, regions for levels.

The commands belong to `prepare_data.py`. Nothing is downloaded.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from cast_sdk.decoding.reader import read_image
from cast_sdk.errors import RecipeError
from cast_sdk.images import is_image
from cast_sdk.runtime.commands.common import OrdinaryPath
from cast_sdk.system.files import atomic_write, read_text, sha256

FOLDER = OrdinaryPath(path_type=Path, exists=True, file_okay=False)
FILE = OrdinaryPath(path_type=Path, exists=True, dir_okay=False)
PHOTO_SIDE = 160  # pixels: photographs to train on are stored at this size
HELD_OUT = 10  # training images per class that form the split "val"
REGION_SIDE = 160
REGIONS = (32, 16, 8, 4)


@dataclass(frozen=True)
class Item:
    """One image of a split: where it lies, its class, and whether it is stored smaller."""

    path: Path
    wnid: str
    shrink: bool = False


@click.command("bundled")
@click.option("--tiny", type=FOLDER, required=True, help="tiny-imagenet-200: train/WNID/images, val/, words.txt.")
@click.option("--imagenette", type=FOLDER, required=True, help="Imagenette: train/WNID and val/WNID.")
@click.option("--out", type=OrdinaryPath(path_type=Path), required=True, help="Folder for the shards.")
@click.option("--leave-out", multiple=True, metavar="WNID", help="A class that is not used. Repeatable.")
def bundled_command(tiny: Path, imagenette: Path, out: Path, leave_out: tuple[str, ...]) -> None:
    """Tiny-ImageNet and Imagenette as one data set of shards: train, val (held out), tiny and imagenette (to test)."""
    from cast_sdk.training.engine.launch import errors_for_people

    with errors_for_people():
        for shard in sorted(out.glob("train-*.tar")):
            if shard.name != "train-00.tar":
                raise RecipeError(
                    f"{out} holds {shard.name}, whose labels may be those of other classes.",
                    remedy="remove it, or give another --out",
                )
        names, splits = collect(tiny, imagenette, leave_out)
        out.mkdir(parents=True, exist_ok=True)
        index = {wnid: number for number, wnid in enumerate(names)}
        for split, items in splits.items():
            write_shard(out / f"{split}-00.tar", items, index)
            click.echo(f"{split}: {len(items):,} images")
        with atomic_write(out / "classes.txt") as temporary:
            temporary.write_text("".join(f"{wnid}\t{name}\n" for wnid, name in names.items()))
        click.echo(f"{len(names)} classes")


@click.command("soft-labels")
@click.option("--data", type=FOLDER, required=True, help="Folder of the data set, with classes.txt and train shards.")
@click.option("--teacher", type=FILE, required=True, help="Network file (.onnx, OpenVINO .xml): see docs/reproduce.md.")
@click.option(
    "--side",
    type=click.IntRange(8, 4096),
    default=128,
    show_default=True,
    help="Pixels that thumbnails are enlarged to.",
)
@click.option(
    "--photo-side",
    type=click.IntRange(8, 4096),
    default=192,
    show_default=True,
    help="Pixels that larger images are shown at.",
)
@click.option("--threads", type=click.IntRange(0, 1024), default=0, show_default=True, help="0: all cores.")
def soft_labels_command(data: Path, teacher: Path, side: int, photo_side: int, threads: int) -> None:
    """A teacher's scores for the training images, for recipes with teacher.weight."""
    from timm.data import ImageNetInfo

    from cast_sdk.training.data.sources import open_source
    from cast_sdk.training.data.teacher.soft_labels import write_scores
    from cast_sdk.training.engine.launch import errors_for_people

    with errors_for_people():
        source = open_source(data, "train")
        columns = imagenet_columns(data / "classes.txt", ImageNetInfo().label_names())
        ask = open_teacher(teacher, columns, (side, photo_side), threads)
        with click.progressbar(length=len(source), label="soft labels", show_pos=True) as bar:
            identity = {"sha256": sha256(teacher), "columns": columns, "sides": [side, photo_side]}
            write_scores(data, source, ask, lambda done: bar.update(done - bar.pos), identity)


@click.command("regions")
@click.option("--bsds", type=FOLDER, help="BSDS500: its train split, with what people drew.")
@click.option("--images", "folders", type=FOLDER, multiple=True, help="Folder of photographs. Repeatable.")
@click.option(
    "--limit", type=click.IntRange(1), default=600, show_default=True, help="Photographs taken of each folder."
)
@click.option("--out", type=OrdinaryPath(path_type=Path), required=True, help="Folder of the data set.")
def regions_command(bsds: Path | None, folders: tuple[Path, ...], limit: int, out: Path) -> None:
    """Nested regions of photographs, for recipes with levels.weight: OUT/regions.npz."""
    from cast_sdk.training.data.dense.bsds import bsds500
    from cast_sdk.training.data.region_file import FILE, write_regions
    from cast_sdk.training.engine.launch import errors_for_people

    with errors_for_people():
        jobs: list[tuple[Path, Any]] = [(entry.image, entry) for entry in (bsds500(bsds, "train") if bsds else [])]
        for folder in folders:
            files = sorted(path for path in folder.rglob("*") if is_image(path))
            jobs += [(path, None) for path in files[:: max(1, len(files) // limit)][:limit]]
        if not jobs:
            raise RecipeError("There is no photograph to make regions of.", remedy="--bsds BSDS500, --images FOLDER")
        images, maps = [], []
        with click.progressbar(jobs, label="regions", show_pos=True) as bar:
            for path, entry in bar:
                image, levels = regions_of(path, [one.labels for one in entry.annotations()] if entry else [])
                images.append(image)
                maps.append(levels)
        out.mkdir(parents=True, exist_ok=True)
        write_regions(out / FILE, np.stack(images), np.stack(maps))


COMMANDS = (bundled_command, soft_labels_command, regions_command)


def collect(
    tiny: Path, imagenette: Path, leave_out: Sequence[str] = ()
) -> tuple[dict[str, str], dict[str, list[Item]]]:
    """Names by wnid in sorted order, and the images of each split.

    Raises:
        RecipeError: when one of the two folders has another layout, or a class to leave out is unknown.
    """
    for folder, parts in ((tiny, ("train", "val/images", "val/val_annotations.txt", "words.txt")),
                          (imagenette, ("train", "val"))):  # fmt: skip
        missing = [part for part in parts if not (folder / part).exists()]
        if missing:
            raise RecipeError(
                f"{folder} is without {missing[0]}.", remedy="give the folder as the data set's archive unpacks"
            )
    small = {path.name for path in (tiny / "train").iterdir() if path.is_dir()}
    unknown = sorted(set(leave_out) - small)
    if unknown:
        raise RecipeError(f"Tiny-ImageNet has no class {', '.join(unknown)}.", remedy="check --leave-out")
    small -= set(leave_out)
    large = {path.name for path in (imagenette / "train").iterdir() if path.is_dir()} - small
    words = dict(line.split("\t", 1) for line in read_text(tiny / "words.txt").splitlines() if "\t" in line)
    names = {wnid: words.get(wnid, wnid).strip() for wnid in sorted(small | large)}

    splits: dict[str, list[Item]] = {"train": [], "val": [], "tiny": [], "imagenette": []}
    for wnid in names:
        root = (tiny if wnid in small else imagenette) / "train" / wnid
        items = [Item(path, wnid) for path in _images(root)]
        splits["val"] += items[:HELD_OUT]
        splits["train"] += [Item(item.path, wnid, wnid in large) for item in items[HELD_OUT:]]
    for line in read_text(tiny / "val/val_annotations.txt").splitlines():
        file, wnid = line.split("\t")[:2]
        if wnid in small:
            splits["tiny"].append(Item(tiny / "val/images" / file, wnid))
    splits["imagenette"] = [Item(path, wnid) for wnid in sorted(large) for path in _images(imagenette / "val" / wnid)]
    return names, splits


def _images(folder: Path) -> Iterator[Path]:
    return iter(sorted(path for path in folder.rglob("*") if is_image(path)))


def write_shard(target: Path, items: Sequence[Item], index: dict[str, int]) -> None:
    """One tar file with `key.jpg` and `key.cls` per image; thumbnails as they are, photographs to train on smaller."""
    with atomic_write(target) as temporary:
        write_images(temporary, ((_stored(item), index[item.wnid]) for item in items))


def _stored(item: Item) -> bytes:
    return jpeg(read_image(item.path), PHOTO_SIDE) if item.shrink else item.path.read_bytes()


def write_images(target: Path, images: Iterable[tuple[bytes, int]], suffix: str = "jpg") -> None:
    """A shard of encoded images and their labels: `key.SUFFIX` and `key.cls` for each."""
    with tarfile.open(target, "w") as tar:
        for number, (data, label) in enumerate(images):
            for ending, content in ((suffix, data), ("cls", str(label).encode())):
                entry = tarfile.TarInfo(f"{number:07d}.{ending}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def jpeg(image: npt.NDArray[np.uint8], side: int) -> bytes:
    """An image, BGR uint8 [h, w, 3], at side x side pixels as JPEG."""
    import cv2

    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


def imagenet_columns(classes: Path, wnids: Sequence[str]) -> list[int]:
    """Position of each class of `classes.txt` among the teacher's.

    Raises:
        RecipeError: naming classes that the teacher does not know.
    """
    if not classes.is_file():
        raise RecipeError(f"{classes} is missing, which tells the classes by name.", remedy="prepare_data.py bundled")
    ours = [line.split("\t")[0] for line in read_text(classes).splitlines() if line.strip()]
    position = {wnid: number for number, wnid in enumerate(wnids)}
    strangers = [wnid for wnid in ours if wnid not in position]
    if strangers:
        raise RecipeError(
            f"The teacher does not know {len(strangers)} classes of the data.",
            found=", ".join(strangers[:5]),
            remedy="use a teacher of ImageNet's 1,000 classes",
        )
    return [position[wnid] for wnid in ours]


def open_teacher(path: Path, columns: Sequence[int], sides: tuple[int, int], threads: int = 0) -> Any:
    """A function of a list of RGB images (uint8 [h, w, 3]) that gives float32 scores [images, classes].

    Args:
        path: .onnx or OpenVINO model: float32 [N,3,H,W], RGB 0..255 -> [N, all classes].
        columns: which of its classes are ours.
        sides: pixels that images of at most 64 and of more pixels are resized to.
        threads: 0: all cores.
    """
    import cv2

    from cast_sdk.runtime.backends.openvino import import_openvino

    openvino = import_openvino()

    core = openvino.Core()
    compiled: dict[int, Any] = {}

    def ask(images: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        out = np.empty((len(images), len(columns)), np.float32)
        for side in sorted(set(sides)):
            chosen = [i for i, image in enumerate(images) if sides[len(image) > 64] == side]
            if chosen and side not in compiled:
                model = core.read_model(path)
                model.reshape([-1, 3, side, side])
                options = {"INFERENCE_NUM_THREADS": threads} if threads else {}
                compiled[side] = core.compile_model(model, "CPU", options)
            for start in range(0, len(chosen), 32):
                part = chosen[start : start + 32]
                batch = np.stack([cv2.resize(images[i], (side, side), interpolation=cv2.INTER_CUBIC) for i in part])
                scores = compiled[side](np.ascontiguousarray(batch.transpose(0, 3, 1, 2), np.float32))[0]
                if scores.ndim != 2 or scores.shape[1] <= max(columns):
                    raise RecipeError(
                        f"The teacher does not give scores of {max(columns) + 1} classes or more.",
                        found=f"{path}: {list(scores.shape)} for {len(part)} images",
                        remedy="use a teacher of ImageNet's 1,000 classes",
                    )
                out[part] = scores[:, columns]
        return out

    return ask


def regions_of(path: Path, annotations: Sequence[npt.NDArray[np.int32]]) -> tuple[Any, Any]:
    """A photograph and its nested regions: uint8 [160, 160, 3] RGB and uint8 [4, 160, 160]."""
    import cv2

    from cast_sdk.training.data.regions import SIDE, nested_regions

    square = cv2.resize(read_image(path), (SIDE, SIDE), interpolation=cv2.INTER_AREA)[:, :, ::-1]
    drawn = [
        cv2.resize(labels, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST).astype(np.int32) for labels in annotations
    ]
    maps = nested_regions(np.ascontiguousarray(square), REGIONS, drawn)
    small = cv2.resize(square, (REGION_SIDE, REGION_SIDE), interpolation=cv2.INTER_AREA)
    shape = (REGION_SIDE, REGION_SIDE)
    return small, np.stack([cv2.resize(level, shape, interpolation=cv2.INTER_NEAREST) for level in maps])
