"""Scores in a JSON file, and pictures in a folder beside it: only what this package wrote is written again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cast_sdk._version import __version__
from cast_sdk.errors import ExportError, InputError
from cast_sdk.system.files import atomic_write, check_replaceable, read_json
from cast_sdk.training.engine import provenance

OURS = "cast_sdk"  # the entry that tells the version which wrote a file


def check(file: Path, pictures: Path | None = None) -> None:
    """Before the work: refuse to write where something else stands.

    Args:
        file: of the scores.
        pictures: folder that gets pictures named after the images.

    Raises:
        ExportError: naming what is in the way.
    """
    check_replaceable(file, read)
    if pictures is None or not pictures.exists() or (pictures.is_dir() and not any(pictures.iterdir())):
        return
    marker = pictures / provenance.FILE
    if provenance.read(marker) is None:
        raise ExportError(
            f"{pictures} is there already, and no {marker.name} in it says that this package made it.",
            remedy="choose another --out, or move the folder away",
        )


def mark(pictures: Path) -> None:
    """Make a folder of pictures, and say in it that it is ours: an interrupted evaluation can then be repeated."""
    pictures.mkdir(parents=True, exist_ok=True)
    if provenance.read(pictures / provenance.FILE) is None:
        provenance.write(pictures / provenance.FILE, {"program": "pictures of an evaluation"})


def read(file: Path) -> dict[str, Any]:
    """The scores of a file of ours.

    Raises:
        InputError: it is none.
    """
    record = read_json(file)
    if not isinstance(record, dict) or OURS not in record:
        raise InputError(
            f"{file} holds no scores of this package.", found=f"no entry {OURS}", remedy="name a file that it wrote"
        )
    return {name: value for name, value in record.items() if name != OURS}


def write(file: Path, scores: Mapping[str, Any]) -> None:
    """Write scores, plain values by name, whole or not at all."""
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps({**scores, OURS: __version__}, indent=1))
