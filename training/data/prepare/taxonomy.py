"""Data sets with a published taxonomy: from their official layouts to class folders in the published numbering.

The commands belong to `prepare_data.py`. They write OUT/train/<class>/ and OUT/val/<class>/ as links (or copies), so
that the sorted folders are numbered as the published checkpoints number their classes. Nothing is downloaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from cast_sdk.errors import RecipeError
from cast_sdk.published_taxonomies import PUBLISHED, published_taxonomy, source_classes
from cast_sdk.runtime.commands.common import OrdinaryPath
from cast_sdk.system.files import atomic_write, read_json, read_text
from cast_sdk.taxonomy import path_table
from cast_sdk.training.data.sources import IMAGE_SUFFIXES

F = TypeVar("F", bound=Callable[..., Any])
Plan = Mapping[str, Mapping[str, "Path | Sequence[Path]"]]  # split -> class folder -> a folder, or its images
BREEDS = tuple(name for name, known in PUBLISHED.items() if known.option.startswith("BREEDS"))


def _options(layout: str) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in (
            click.option("--copy", is_flag=True, help="Copy the images instead of linking them."),
            click.option("--out", required=True, type=OrdinaryPath(path_type=Path), help="Folder to arrange them in."),
            click.option("--data", required=True, type=OrdinaryPath(path_type=Path), help=layout),
        ):
            command = option(command)
        return command

    return add


@click.command("cub200")
@_options("CUB_200_2011, with images.txt and images/.")
def cub200_command(data: Path, out: Path, copy: bool) -> None:
    """Arrange CUB-200-2011 by its official split."""
    _run("cub200", out, copy, lambda: cub200(data))


@click.command("aircraft")
@_options("fgvc-aircraft-2013b/data, with images/ and images_variant_*.txt.")
def aircraft_command(data: Path, out: Path, copy: bool) -> None:
    """Arrange FGVC-Aircraft (trainval and test) in the published order of its variants."""
    names = published_taxonomy("aircraft")[0].class_names
    folders = [f"{number:03d}_{safe(name)}" for number, name in enumerate(names)]
    _run("aircraft", out, copy, lambda: aircraft(data), list(zip(folders, names, strict=True)))


@click.command("breeds")
@_options("ImageNet-1K, with train/<wnid>/ and val/<wnid>/.")
@click.option("--set", "name", required=True, type=click.Choice(BREEDS), help="Which of the four.")
def breeds_command(data: Path, out: Path, copy: bool, name: str) -> None:
    """Make a BREEDS data set (source split) from ImageNet's class folders."""
    _run(name, out, copy, lambda: breeds(data, name))


@click.command("inat21-mini")
@_options("Folder with train_mini/ and val/ of iNaturalist 2021.")
def inat21_command(data: Path, out: Path, copy: bool) -> None:
    """Arrange iNaturalist 2021 mini, and check the tree in its folders' names."""
    _run("inat21_mini", out, copy, lambda: inat21_mini(data))


@click.command("inat18")
@_options("Folder with train2018.json, val2018.json and train_val2018/.")
def inat18_command(data: Path, out: Path, copy: bool) -> None:
    """Arrange iNaturalist 2018 by its lists, and check their super-categories."""
    _run("inat18", out, copy, lambda: inat18(data))


COMMANDS = (cub200_command, aircraft_command, breeds_command, inat21_command, inat18_command)


def _run(
    tree: str, out: Path, copy: bool, plan: Callable[[], Plan], classes: Sequence[tuple[str, str]] | None = None
) -> None:
    from cast_sdk.training.engine.launch import errors_for_people

    with errors_for_people():
        for split, count in arrange(plan(), out, PUBLISHED[tree].classes[0], copy).items():
            print(f"{out / split}: {count:,} images, {PUBLISHED[tree].classes[0]:,} classes")
        if classes is not None:
            with atomic_write(out / "classes.txt") as temporary:
                temporary.write_text("".join(f"{folder}\t{name}\n" for folder, name in classes))
        print(f"train with --set taxonomy.tree={tree}")


# what is where --------------------------------------------------------------------------------------------------------


def cub200(data: Path) -> Plan:
    """Images by the table of the official split; classes are its folders."""
    names = _columns(data / "images.txt")
    official = _columns(data / "train_test_split.txt")
    plan: dict[str, dict[str, list[Path]]] = {"train": {}, "val": {}}
    for number, name in sorted(names.items(), key=lambda item: item[1]):
        if number not in official:
            raise RecipeError(f"train_test_split.txt does not have image {number}, {name}.", found=str(data))
        split = "train" if official[number] == "1" else "val"
        plan[split].setdefault(name.partition("/")[0], []).append(data / "images" / name)
    return plan


def aircraft(data: Path) -> Plan:
    """Images of trainval and test by variant, in folders numbered as published."""
    names = published_taxonomy("aircraft")[0].class_names
    folder = {name: f"{number:03d}_{safe(name)}" for number, name in enumerate(names)}
    plan: dict[str, dict[str, list[Path]]] = {}
    for split, official in (("train", "trainval"), ("val", "test")):
        images = plan.setdefault(split, {})
        for number, variant in _columns(data / f"images_variant_{official}.txt").items():
            if variant not in folder:
                raise RecipeError(
                    f"images_variant_{official}.txt names {variant!r}, which is no published variant.",
                    remedy="use the lists of FGVC-Aircraft 2013b",
                )
            images.setdefault(folder[variant], []).append(data / "images" / f"{number}.jpg")
    return plan


def breeds(data: Path, name: str) -> Plan:
    """ImageNet's folders of the source split in group order."""
    wnids = source_classes(name)
    return {
        split: {f"{number:03d}_{wnid}": data / split / wnid for number, wnid in enumerate(wnids)}
        for split in ("train", "val")
    }


def inat21_mini(data: Path) -> Plan:
    """The folders as they are: they are numbered and named after the whole tree.

    Raises:
        RecipeError: when the families and orders in their names are not the published tree.
    """
    folders = sorted(path.name for path in _folder(data / "train_mini").iterdir() if path.is_dir())
    parts = [name.split("_") for name in folders]
    short = [name for name, part in zip(folders, parts, strict=True) if len(part) < 8]
    if short:
        raise RecipeError(
            f"The folder {short[0]} is not named after a whole tree.",
            found=str(data),
            remedy="use the folders of iNaturalist 2021: 00000_kingdom_phylum_class_order_family_genus_species",
        )
    families, orders = first_seen([part[5] for part in parts]), first_seen([part[4] for part in parts])
    _check_tree("inat21_mini", np.stack([np.arange(len(folders)), families, orders], 1), data)
    return {
        split: {name: data / official / name for name in folders}
        for split, official in (("train", "train_mini"), ("val", "val"))
    }


def inat18(data: Path) -> Plan:
    """Images of the two lists by category number.

    Raises:
        RecipeError: when the folders' super-categories are not the coarsest level of the published tree.
    """
    plan: dict[str, dict[str, list[Path]]] = {}
    groups: dict[int, str] = {}
    for split in ("train", "val"):
        path = data / f"{split}2018.json"
        try:
            lists = read_json(path)
            files = {image["id"]: str(image["file_name"]) for image in lists["images"]}
            pairs = [(int(note["category_id"]), files[note["image_id"]]) for note in lists["annotations"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecipeError(
                f"{path} is not a list of iNaturalist 2018, JSON with images and annotations.",
                found=repr(error),
                remedy="unpack train2018.json.tar.gz and val2018.json.tar.gz there",
            ) from error
        images = plan.setdefault(split, {})
        for category, name in sorted(pairs):
            images.setdefault(f"{category:04d}", []).append(data / name)
            groups[category] = name.split("/")[1] if name.count("/") > 1 else ""
    if not _same_groups(groups):
        raise RecipeError(
            f"The categories of {data} do not lie in the folders of their published super-categories.",
            found=f"{len(groups)} categories in {len(set(groups.values()))} folders",
            remedy="use the lists and images of the competition of 2018",
        )
    return plan


# arranging ------------------------------------------------------------------------------------------------------------


def arrange(plan: Plan, out: Path, classes: int, copy: bool = False) -> dict[str, int]:
    """Link (or copy) the images of a plan to OUT/<split>/<class>/; what is there is kept. Returns images per split.

    Raises:
        RecipeError: for another number of classes or missing images, before anything is written.
    """
    for split, folders in plan.items():
        if len(folders) != classes:
            raise RecipeError(
                f"The split {split} has {len(folders):,} classes and should have {classes:,}.",
                remedy="unpack the archives again",
            )
        missing = [one for entry in folders.values() for one in _parts(entry) if not one.exists()]
        if missing:
            raise RecipeError(
                f"{len(missing):,} of the data set's files are missing for {split}, first {missing[0]}.",
                remedy="unpack the archives again",
            )
    counts = {}
    for split, folders in plan.items():
        counts[split] = 0
        for name, entry in folders.items():
            target = out / split / name
            if isinstance(entry, Path) and not copy:
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    target.symlink_to(entry.resolve(), target_is_directory=True)
                counts[split] += sum(1 for _ in _images(entry))
                continue
            target.mkdir(parents=True, exist_ok=True)
            for source in _images(entry):
                _place(source, target / source.name, copy)
                counts[split] += 1
    return counts


def _place(source: Path, goal: Path, copy: bool) -> None:
    if not copy:
        if not goal.exists():
            goal.symlink_to(source.resolve())
    elif not goal.exists() or goal.stat().st_size != source.stat().st_size:  # an interrupted copy is completed
        shutil.copy2(source, goal)


def _parts(entry: Path | Sequence[Path]) -> Sequence[Path]:
    return [entry] if isinstance(entry, Path) else entry


def _images(entry: Path | Sequence[Path]) -> Sequence[Path]:
    if isinstance(entry, Path):
        return sorted(path for path in entry.iterdir() if path.suffix in IMAGE_SUFFIXES)
    return entry


def first_seen(names: Sequence[str]) -> np.ndarray:
    """Numbers of names in the order of their first appearance: int64 [n]."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def safe(name: str) -> str:
    """A variant's name as a folder's."""
    return name.replace("/", "-").replace(" ", "_")


def _check_tree(name: str, table: np.ndarray, data: Path) -> None:
    published = path_table(published_taxonomy(name))
    assert published is not None
    if table.shape != published.shape or not np.array_equal(table, published):
        what = (
            f"{len(table):,} classes"
            if table.shape != published.shape
            else f"{int((table != published).any(1).sum()):,} of {len(table):,} classes elsewhere"
        )
        raise RecipeError(
            f"The folders of {data} are not the published tree of {PUBLISHED[name].title}.",
            found=what,
            remedy="use the folders as they are unpacked",
        )


def _same_groups(folders: Mapping[int, str]) -> bool:
    """Whether categories share a folder exactly when they share a super-category of iNaturalist 2018."""
    table = path_table(published_taxonomy("inat18"))
    assert table is not None
    if max(folders) >= len(table):
        return False
    pairs = {(int(table[number, -1]), folder) for number, folder in folders.items()}
    return len(pairs) == len({group for group, _ in pairs}) == len({folder for _, folder in pairs})


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise RecipeError(f"There is no folder {path}.", remedy="check --data")
    return path


def _columns(path: Path) -> dict[str, str]:
    """First word of every line -> the rest of it.

    Raises:
        RecipeError: when the file is missing, or has a line of one word.
    """
    try:
        lines = [line.split(maxsplit=1) for line in read_text(path).splitlines() if line.strip()]
    except OSError as error:
        raise RecipeError(f"The list {path} cannot be read.", found=error.strerror, remedy="check --data") from error
    if any(len(line) < 2 for line in lines):
        raise RecipeError(f"{path} has a line of one word.", remedy="unpack the archive again")
    return {first: rest.strip() for first, rest in lines}
