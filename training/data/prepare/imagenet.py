"""ImageNet-1K and its 100-class subset: layout checks that name what is missing, and the subset by links or copies.

The commands belong to `prepare_data.py`. Nothing is downloaded.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from cast_sdk.errors import RecipeError
from cast_sdk.images import images_in
from cast_sdk.runtime.commands.common import OrdinaryPath
from cast_sdk.system.files import read_csv, read_text

SIZES = {"train": 1_281_167, "val": 50_000}
# The usual 100 classes (Tian et al., "Contrastive Multiview Coding", 2019). The CAST release has a list beside its
# filter script: give that, or any other, to --classes.
IMAGENET_100 = """
n01558993 n01692333 n01729322 n01735189 n01749939 n01773797 n01820546 n01855672 n01978455 n01980166 n01983481
n02009229 n02018207 n02085620 n02086240 n02086910 n02087046 n02089867 n02089973 n02090622 n02091831 n02093428
n02099849 n02100583 n02104029 n02105505 n02106550 n02107142 n02108089 n02109047 n02113799 n02113978 n02114855
n02116738 n02119022 n02123045 n02138441 n02172182 n02231487 n02259212 n02326432 n02396427 n02483362 n02488291
n02701002 n02788148 n02804414 n02859443 n02869837 n02877765 n02974003 n03017168 n03032252 n03062245 n03085013
n03259280 n03379051 n03424325 n03492542 n03494278 n03530642 n03584829 n03594734 n03637318 n03642806 n03764736
n03775546 n03777754 n03785016 n03787032 n03794056 n03837869 n03891251 n03903868 n03930630 n03947888 n04026417
n04067472 n04099969 n04111531 n04127249 n04136333 n04229816 n04238763 n04336792 n04418357 n04429376 n04435653
n04485082 n04493381 n04517823 n04589890 n04592741 n07714571 n07715103 n07753275 n07831146 n07836838 n13037406
n13040303
""".split()  # noqa: SIM905 (a hundred names in twelve lines)


@click.command("imagenet")
@click.option("--data", required=True, type=OrdinaryPath(path_type=Path), help="Folder with train/ and val/.")
@click.option("--val-labels", type=OrdinaryPath(path_type=Path), help="Sort a flat val/ by LOC_val_solution.csv first.")
def imagenet_command(data: Path, val_labels: Path | None) -> None:
    """Check ImageNet-1K (train/<wnid>/ and val/<wnid>/); sort a flat val/ into class folders."""
    from timm.data import ImageNetInfo

    from cast_sdk.training.engine.launch import errors_for_people

    with errors_for_people():
        if val_labels is not None:
            print(f"sorted {sort_validation(data / 'val', read_solution(val_labels)):,} validation images")
        for split, count in check_classes(data, ImageNetInfo().label_names()).items():
            note = "" if count == SIZES[split] else f" (the full data set has {SIZES[split]:,})"
            print(f"imagenet {split}: {count:,} images, 1,000 classes{note}")


@click.command("imagenet100")
@click.option("--data", required=True, type=OrdinaryPath(path_type=Path), help="ImageNet-1K, with train/ and val/.")
@click.option("--out", required=True, type=OrdinaryPath(path_type=Path), help="Folder of the subset.")
@click.option(
    "--classes", type=OrdinaryPath(path_type=Path), help="File with one wnid a line (default: the usual 100)."
)
@click.option("--copy", is_flag=True, help="Copy the images instead of linking the class folders.")
def imagenet100_command(data: Path, out: Path, classes: Path | None, copy: bool) -> None:
    """Make ImageNet-100 from ImageNet-1K."""
    from cast_sdk.training.engine.launch import errors_for_people

    with errors_for_people():
        wnids = IMAGENET_100 if classes is None else read_list(classes)
        for split, count in make_subset(data, out, wnids, copy).items():
            print(f"{out / split}: {count:,} images, {len(wnids)} classes")


COMMANDS = (imagenet_command, imagenet100_command)


def check_classes(root: Path, wnids: Sequence[str]) -> dict[str, int]:
    """Images per split when both splits hold exactly these class folders, none of them empty.

    Raises:
        RecipeError: naming the split or the classes that are missing, empty or unknown.
    """
    counts = {}
    for split in SIZES:
        folder = root / split
        if not folder.is_dir():
            raise RecipeError(
                f"The folder {folder} is missing.",
                remedy=f"unpack ILSVRC2012_img_{split}.tar there (image-net.org, for research, with an account)",
            )
        there = {path.name for path in folder.iterdir() if path.is_dir()}
        if not there and split == "val":
            raise RecipeError(
                f"The validation images in {folder} are not sorted into class folders.",
                remedy="prepare_data.py imagenet --data ... --val-labels LOC_val_solution.csv",
            )
        sizes = {wnid: _images(folder / wnid) for wnid in wnids if wnid in there}
        problems = {
            "missing": [wnid for wnid in wnids if wnid not in there],
            "empty": [wnid for wnid, size in sizes.items() if size == 0],
            "unknown": sorted(there - set(wnids)),
        }
        found = [f"{len(names)} {what}: {', '.join(names[:5])}" for what, names in problems.items() if names]
        if found:
            raise RecipeError(
                f"{folder} does not hold the {len(wnids)} class folders with images.",
                found="; ".join(found),
                remedy="unpack the archives of those classes again, and move other folders away",
            )
        counts[split] = sum(sizes.values())
    return counts


def make_subset(root: Path, out: Path, wnids: Sequence[str], copy: bool = False) -> dict[str, int]:
    """Link (or copy) class folders of both splits to `out`; what is there already is kept. Returns images per split.

    Raises:
        RecipeError: when a class folder is missing, naming all of them, before anything is written.
    """
    splits = list(SIZES)
    missing = [f"{split}/{wnid}" for split in splits for wnid in wnids if not (root / split / wnid).is_dir()]
    if missing:
        raise RecipeError(
            f"{len(missing)} class folders of the subset are missing in {root}.",
            found=", ".join(missing[:5]),
            remedy="check the folder with: prepare_data.py imagenet --data ...",
        )
    for split in splits:
        (out / split).mkdir(parents=True, exist_ok=True)
        for wnid in wnids:
            source, target = root / split / wnid, out / split / wnid
            if copy:
                _copy(source, target)
            elif not target.exists():
                target.symlink_to(source.resolve(), target_is_directory=True)
    return check_classes(out, wnids)


def _copy(source: Path, target: Path) -> None:
    """Copy a folder's images; an interrupted copy is completed by the next call."""
    target.mkdir(exist_ok=True)
    for path in images_in(source):
        goal = target / path.name
        if not (goal.exists() and goal.stat().st_size == path.stat().st_size):
            shutil.copy2(path, goal)


def _images(folder: Path) -> int:
    return len(images_in(folder))


def read_list(path: Path) -> list[str]:
    """The first word of every line."""
    words = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
    if not words or len(set(words)) != len(words):
        raise RecipeError(
            f"{path} is empty or names a class twice: {len(words)} lines, {len(set(words))} wnids.",
        )
    return words


def read_solution(path: Path) -> dict[str, str]:
    """Image name -> wnid from LOC_val_solution.csv (`ImageId,PredictionString`, the string starting with the wnid).

    Raises:
        RecipeError: for a file of another kind.
    """
    rows = [row for row in read_csv(path) if len(row) == 2 and re.match(r"n\d{8}\b", row[1])]
    if not rows:
        raise RecipeError(
            f"{path} is not LOC_val_solution.csv: no lines such as ILSVRC2012_val_00000001,n01751748 ...",
            remedy="it is part of the ImageNet object localisation challenge's download",
        )
    return {row[0]: row[1].split()[0] for row in rows}


def sort_validation(folder: Path, labels: dict[str, str]) -> int:
    """Move `val/NAME.JPEG` into `val/<wnid>/`; images that are sorted already stay. Returns how many were moved.

    Raises:
        RecipeError: naming images without a label, before anything is moved.
    """
    images = images_in(folder)
    unknown = [path.name for path in images if path.stem not in labels]
    if unknown:
        raise RecipeError(f"{len(unknown)} validation images in {folder} have no label, first {unknown[0]}.")
    for path in images:
        target = folder / labels[path.stem]
        target.mkdir(exist_ok=True)
        path.rename(target / path.name)
    return len(images)
