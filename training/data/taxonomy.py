"""Taxonomies of data sets: a published one by name, or a table of classes and their parents.

A table is a CSV file. Its header names the levels, fine to coarse; each line names one class of the data and its
parents:

    species,family,order
    crow,corvids,passerines
    jay,corvids,passerines
    tern,gulls,shorebirds

Its lines may stand in any order: classes are numbered as the data numbers them, parents in the order of their names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from cast_sdk.errors import InputError
from cast_sdk.published_taxonomies import PUBLISHED, published_taxonomy, source_classes
from cast_sdk.system.files import read_csv
from cast_sdk.taxonomy import STAGES, Taxonomy, TaxonomyLevel, check_taxonomy
from cast_sdk.training.engine.recipe.files import FOLDER


def taxonomy_for(tree: str, classes: Sequence[str]) -> Taxonomy:
    """The taxonomy of data with these classes.

    Args:
        tree: a published name such as "cub200", a CSV file, or the name of a table beside the recipes.
        classes: names of the data's classes in label order.

    Raises:
        InputError: for an unknown tree, a table that is none, or one of other classes than the data's.
    """
    if tree in PUBLISHED:
        return _published(tree, classes)
    path = Path(tree)
    if not path.is_file() and path.name == tree:
        path = FOLDER / (tree if tree.endswith(".csv") else f"{tree}.csv")
    if not path.is_file():
        tables = sorted(file.stem for file in FOLDER.glob("*.csv"))
        raise InputError(
            f"There is no taxonomy {tree}.",
            remedy=f"give the path of a table, or one of: {', '.join([*PUBLISHED, *tables])}",
        )
    return from_table(read_table(path), classes, str(path))


def read_table(path: Path) -> list[list[str]]:
    """The lines of a table, the header first; empty lines are left out.

    Raises:
        InputError: for lines of different lengths, empty cells, or anything but two or three levels.
    """
    rows = [[cell.strip() for cell in row] for row in read_csv(path) if any(cell.strip() for cell in row)]
    if len(rows) < 2 or len(rows[0]) not in STAGES:
        raise InputError(
            f"{path} is not a table of two or three levels with a line per class.",
            found=f"{len(rows)} lines, {len(rows[0]) if rows else 0} columns",
            remedy="begin with a header, fine to coarse, such as: species,family,order",
        )
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]) or not all(row):
            raise InputError(
                f"Line {number} of {path} does not name {len(rows[0])} classes.",
                found=",".join(row),
                remedy=f"give a class for each of {', '.join(rows[0])}",
            )
    return rows


def from_table(rows: Sequence[Sequence[str]], classes: Sequence[str], source: str = "") -> Taxonomy:
    """Levels of the lines of a table for data with these classes.

    Raises:
        InputError: when the table and the data differ in their classes, or when it is not a tree.
    """
    header, *lines = rows
    by_class: dict[str, Sequence[str]] = {}
    for line in lines:
        if line[0] in by_class:
            raise InputError(f"{source} has {line[0]} twice.", remedy="keep one line per class")
        by_class[line[0]] = line
    differences = {
        "missing in the table": sorted(set(classes) - set(by_class)),
        "not in the data": sorted(set(by_class) - set(classes)),
    }
    if any(differences.values()):
        raise InputError(
            f"The classes of {source} are not those of the data.",
            found="; ".join(
                f"{len(names)} {what}: {', '.join(names[:4])}" for what, names in differences.items() if names
            ),
            remedy="the first column holds the names of the class folders (or of classes.txt)",
        )
    for column in range(1, len(header) - 1):
        _check_parents(lines, column, source)
    levels = [TaxonomyLevel(header[0], len(classes), STAGES[len(header)][0], tuple(classes))]
    for column in range(1, len(header)):
        names = sorted({line[column] for line in lines})
        members = tuple(names.index(by_class[name][column]) for name in classes)
        levels.append(TaxonomyLevel(header[column], len(names), STAGES[len(header)][column], tuple(names), members))
    check_taxonomy(levels)
    return tuple(levels)


def _check_parents(lines: Sequence[Sequence[str]], column: int, source: str) -> None:
    parents: dict[str, str] = {}
    for line in lines:
        child, parent = line[column], line[column + 1]
        if parents.setdefault(child, parent) != parent:
            raise InputError(
                f"{child} has two parents in {source}: {parents[child]} and {parent}.",
                remedy="give the two different names, or correct the table",
            )


def _published(name: str, classes: Sequence[str]) -> Taxonomy:
    """A published taxonomy with the data's class names."""
    finest, *coarser = published_taxonomy(name)
    if len(classes) != finest.num_classes:
        raise InputError(
            f"The data has {len(classes)} classes, {PUBLISHED[name].title} has {finest.num_classes}.",
            remedy="arrange its folders with prepare_data.py (docs/taxonomy.md)",
        )
    expected = source_classes(name)
    wrong = [found for found, wanted in zip(classes, expected, strict=False) if wanted not in found]
    if wrong:
        raise InputError(
            f"{wrong[0]} is not where {PUBLISHED[name].title} has it: its classes are numbered group by group.",
            remedy="arrange its folders with prepare_data.py (docs/taxonomy.md)",
        )
    names = _imagenet_names(expected) if expected else tuple(classes)
    return (dataclasses.replace(finest, class_names=names), *coarser)


def _imagenet_names(wnids: Sequence[str]) -> tuple[str, ...]:
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_name_to_description(wnid) for wnid in wnids)
