"""Preparation of the dense data sets: layout checks, conversions and lists. Downloads nothing.

The commands belong to `prepare_data.py`; each says what is missing, where it comes from and where it goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.errors import RecipeError
from cast_sdk.runtime.commands.common import OrdinaryPath
from cast_sdk.system.files import read_text

if TYPE_CHECKING:
    import numpy as np

    from cast_sdk.training.data.dense.base import DenseSplit

EXPECTED = {
    ("ade20k", "train"): 20210,
    ("ade20k", "val"): 2000,
    ("pcontext", "train"): 4998,
    ("pcontext", "val"): 5105,
    ("voc", "train"): 10582,
    ("voc", "val"): 1449,
    ("camvid", "train"): 367,
    ("camvid", "val"): 101,
}
_DATA = click.option("--data", required=True, type=OrdinaryPath(path_type=Path), help="Folder of the data set.")


@click.command("ade20k")
@_DATA
def ade20k_command(data: Path) -> None:
    """Check ADEChallengeData2016."""
    with _errors():
        check("ade20k", data)


@click.command("camvid")
@_DATA
def camvid_command(data: Path) -> None:
    """Check CamVid in SegNet's 11-class layout."""
    with _errors():
        check("camvid", data)


@click.command("pcontext")
@_DATA
@click.option(
    "--annotations", type=OrdinaryPath(path_type=Path), help="Folder with train.pth and val.pth, or with .mat."
)
def pcontext_command(data: Path, annotations: Path | None) -> None:
    """Make Pascal Context's class maps and lists from its annotation files, then check."""
    with _errors():
        if annotations is not None:
            convert_pcontext(data, annotations)
        check("pcontext", data)


@click.command("voc")
@_DATA
def voc_command(data: Path) -> None:
    """Make VOC 2012 class maps and the train+ and val lists from VOC2012 and SBD, then check."""
    with _errors():
        convert_voc(data)
        check("voc", data)


@click.command("coco")
@_DATA
def coco_command(data: Path) -> None:
    """Give COCO train2017 the class-folder layout that pre-training reads."""
    with _errors():
        print(f"{prepare_coco(data)} images in {data / 'train' / 'train2017'}: ready for pretrain.py")


@click.command("partimagenet")
@_DATA
@click.option("--split", default="val", show_default=True)
def partimagenet_command(data: Path, split: str) -> None:
    """Check PartImageNet."""
    from cast_sdk.training.data.dense.partimagenet import PartImageNet

    with _errors():
        found = PartImageNet.open(data, split)
        missing = [path for path in map(found.path, found.images) if not path.is_file()]
        if missing:
            raise RecipeError(
                f"{len(missing)} of {len(found.images)} annotated images are missing, first {missing[0]}.",
                remedy=f"unpack PartImageNet_OOD so that images are in {data}/images/{split}/<wnid>/",
            )
        print(f"{len(found.images)} images, {len(found.objects)} objects, {len(found.parts)} parts: ready for parts.py")


COMMANDS = (ade20k_command, camvid_command, pcontext_command, voc_command, coco_command, partimagenet_command)


def check(data: str, root: Path) -> dict[str, int]:
    """Open both splits and read the first label of each; prints and returns the numbers of images."""
    from cast_sdk.training.data.dense.opening import open_split

    counts = {}
    for name in ("train", "val"):
        split: DenseSplit = open_split(data, root, name)
        split.read(0)
        counts[name], expected = len(split), EXPECTED[data, name]
        note = "" if len(split) == expected else f" (the full data set has {expected:,})"
        print(f"{data} {name}: {len(split):,} images, {len(split.class_names)} classes{note}")
    return counts


def convert_voc(root: Path) -> None:
    """VOC2012/segcls/*.png, sbd/dataset/clsimg/*.png and lists/{train+,val}.txt. Files that exist are kept.

    train+ is VOC's train and all of SBD, without the images of VOC's val.

    Raises:
        RecipeError: naming the archive that is missing.
    """
    from cast_sdk.training.data.dense.base import find_home, read_indices
    from cast_sdk.training.data.dense.voc import read_list

    sources = "VOCtrainval_11-May-2012.tar (host.robots.ox.ac.uk) and SBD's benchmark.tgz, dataset as sbd/dataset"
    needs = ["VOC2012/JPEGImages", "VOC2012/SegmentationClass", "VOC2012/ImageSets/Segmentation", "sbd/dataset/cls"]
    home = find_home(root, ["VOCdevkit"], needs, "The VOC folder", f"unpack {sources}")
    sets = home / "VOC2012" / "ImageSets" / "Segmentation"
    train, val = ([line[0] for line in read_list(sets / f"{name}.txt")] for name in ("train", "val"))
    sbd = {line[0] for name in ("train", "val") for line in read_list(home / "sbd" / "dataset" / f"{name}.txt")}
    extra = sorted(sbd - {*train, *val})
    for name in _progress([*train, *val], "VOC labels"):
        source = home / "VOC2012" / "SegmentationClass" / f"{name}.png"
        _write_png(home / "VOC2012" / "segcls" / f"{name}.png", lambda source=source: read_indices(source))
    for name in _progress(extra, "SBD labels"):
        source = home / "sbd" / "dataset" / "cls" / f"{name}.mat"
        _write_png(home / "sbd" / "dataset" / "clsimg" / f"{name}.png", lambda source=source: _sbd_classes(source))
    voc_lines = {name: f"VOC2012/JPEGImages/{name}.jpg VOC2012/segcls/{name}.png" for name in [*train, *val]}
    sbd_lines = {name: f"VOC2012/JPEGImages/{name}.jpg sbd/dataset/clsimg/{name}.png" for name in extra}
    lines = {**{name: voc_lines[name] for name in train}, **sbd_lines}
    _write_text(home / "lists" / "train+.txt", "".join(f"{lines[name]}\n" for name in sorted(lines)))
    _write_text(home / "lists" / "val.txt", "".join(f"{voc_lines[name]}\n" for name in val))


def _sbd_classes(path: Path) -> np.ndarray:
    from cast_sdk.training.data.dense.base import read_mat

    try:
        return read_mat(path)["GTcls"][0, 0]["Segmentation"]
    except (ValueError, KeyError, IndexError) as error:
        raise RecipeError(
            f"{path} is no SBD annotation: no GTcls.Segmentation.", found=str(error), remedy="unpack SBD again"
        ) from error


def convert_pcontext(root: Path, annotations: Path) -> None:
    """SegmentationClassContext/*.png and ImageSets/SegmentationContext/{train,val}.txt of Pascal Context.

    Args:
        root: VOC2010 or a folder above it.
        annotations: folder with `train.pth` and `val.pth` (image number -> PIL class map), or the official release:
            `<image>.mat` files with a LabelMap of 459 classes and `labels.txt`; its splits are those of VOC2010.

    Raises:
        RecipeError: for annotation files that are neither.
    """
    from cast_sdk.training.data.dense.base import find_home
    from cast_sdk.training.data.dense.pcontext import HOMES
    from cast_sdk.training.data.dense.voc import read_list

    home = find_home(root, HOMES, ["JPEGImages"], "VOC2010", "unpack VOCtrainval_03-May-2010.tar")
    names: dict[str, list[str]] = {}
    for split in ("train", "val"):
        if (annotations / f"{split}.pth").is_file():
            maps = _torch_maps(annotations / f"{split}.pth")
        elif (annotations / "labels.txt").is_file():
            listed = [line[0] for line in read_list(home / "ImageSets" / "Main" / f"{split}.txt")]
            maps = {name: annotations / f"{name}.mat" for name in listed if (annotations / f"{name}.mat").is_file()}
        else:
            raise RecipeError(
                f"No train.pth and val.pth, and no .mat files with labels.txt in {annotations}.",
                remedy="get trainval.tar.gz of PASCAL-Context (cs.stanford.edu/~roozbeh/pascal-context)",
            )
        for name, source in _progress(sorted(maps.items()), f"Pascal Context {split}"):
            target = home / "SegmentationClassContext" / f"{name}.png"
            _write_png(target, lambda source=source: _context_classes(source, annotations))
        names[split] = sorted(maps)
    for split, listed in names.items():
        lists = home / "ImageSets" / "SegmentationContext" / f"{split}.txt"
        _write_text(lists, "".join(f"{name}\n" for name in listed))


def _torch_maps(path: Path) -> dict[str, Any]:
    """Name -> PIL image of a .pth file, whose keys are numbers: 2008000002 is 2008_000002. Runs no code from it."""
    import pickle

    import torch
    from PIL import Image, PngImagePlugin

    try:
        with torch.serialization.safe_globals([Image.Image, PngImagePlugin.PngImageFile]):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise RecipeError(
            f"{path} holds no dictionary of PIL images.",
            found=str(error).splitlines()[0],
            remedy="download the file again, or convert from the .mat files",
        ) from error
    return {f"{str(key)[:4]}_{str(key)[4:]}": value for key, value in stored.items()}


def _context_classes(source: Any, annotations: Path) -> np.ndarray:
    """Class map 0..59 of a PIL image, or of a LabelMap by the names in labels.txt (others are background)."""
    import numpy as np

    from cast_sdk.training.data.dense.pcontext import CLASSES

    if not isinstance(source, Path):
        return np.asarray(source).astype(np.uint8)
    from cast_sdk.training.data.dense.base import read_mat

    rows = [line.split(":") for line in read_text(annotations / "labels.txt").splitlines() if ":" in line]
    table = np.zeros(max(int(number) for number, _ in rows) + 1, np.uint8)
    for number, name in rows:
        if name.strip() in CLASSES:
            table[int(number)] = CLASSES.index(name.strip())
    return table[read_mat(source)["LabelMap"]]


def prepare_coco(root: Path) -> int:
    """Link `train2017` into `train/` as its only class folder; returns the number of images.

    Raises:
        RecipeError: when there is no train2017 folder.
    """
    target, source = root / "train" / "train2017", root / "train2017"
    if not target.is_dir():
        if not source.is_dir():
            raise RecipeError(
                f"Neither {target} nor {source} exists.",
                remedy="unpack train2017.zip (images.cocodataset.org/zips) into the folder",
            )
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(source.resolve(), target_is_directory=True)
    return sum(1 for path in target.iterdir() if path.suffix == ".jpg")


def _write_png(path: Path, make: Any) -> None:
    import numpy as np
    from PIL import Image

    from cast_sdk.system.files import atomic_write

    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.ascontiguousarray(make(), dtype=np.uint8))
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG")


def _write_text(path: Path, text: str) -> None:
    from cast_sdk.system.files import atomic_write

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def _progress(items: Iterable[Any], description: str) -> Iterable[Any]:
    from cast_sdk.training.engine.progress import progress

    return progress(list(items), description)


def _errors() -> Any:
    from cast_sdk.training.engine.launch import errors_for_people

    return errors_for_people()
