"""The results of `hierarchy.py` in their folder: kept for the next run, and never mixed with files of others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cast_sdk.arguments import real
from cast_sdk.descriptions import build
from cast_sdk.errors import InputError
from cast_sdk.system.files import atomic_write, kind_at, read_json
from cast_sdk.training.metrics.partition import MEASURES, HierarchyScores

RECORD, TABLE, PICTURES = "hierarchy.json", "hierarchy.md", "pictures"


def begin(out: Path, where: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, HierarchyScores]:
    """Make the folder of results or find it again, before the work: an interrupted run can then be repeated.

    Args:
        out: the folder.
        where: images and settings, plain values that decide all results.
        keys: of each method, equal when its results must be; an empty one never is.

    Returns:
        Results of an earlier run with equal `where`, of methods that have not changed.

    Raises:
        InputError: files there have the names of results and are none, or the results are damaged.
    """
    record = _stored(out)
    known = _unchanged(record, where, keys)
    out.mkdir(parents=True, exist_ok=True)
    if not record:
        _write_record(out, where, {})
    return known


def write(out: Path, where: Mapping[str, Any], methods: Mapping[str, Any], table: str) -> None:
    """The results in place of those of before: the record, and the table in Markdown."""
    _write_record(out, where, methods)
    with atomic_write(out / TABLE) as temporary:
        temporary.write_text(table)


def _write_record(out: Path, where: Mapping[str, Any], methods: Mapping[str, Any]) -> None:
    with atomic_write(out / RECORD) as temporary:
        temporary.write_text(json.dumps({**where, "methods": methods}, indent=1))


def _stored(out: Path) -> dict[str, Any]:
    file = out / RECORD
    try:
        record = None if kind_at(file) == "nothing" else read_json(file)
    except InputError:
        record = None
    if isinstance(record, dict) and isinstance(record.get("methods"), dict) and "tolerance" in record:
        return record
    others = [path for path in (file, out / TABLE, out / PICTURES) if path.exists() or path.is_symlink()]
    if others:
        raise InputError(
            f"{others[0]} is there already and was not written by this program, so it is not replaced.",
            remedy="choose another --out, or move it away",
        )
    return {}


def _unchanged(
    record: Mapping[str, Any], where: Mapping[str, Any], keys: Mapping[str, str]
) -> dict[str, HierarchyScores]:
    if any(record.get(name) != value for name, value in where.items()):
        return {}
    found = {}
    for method, key in keys.items():
        old = record["methods"].get(method)
        if key and isinstance(old, dict) and old.get("key") == key:
            scores = {name: value for name, value in old.items() if name not in ("note", "key")}
            what, remedy = f"the result of {method} in {RECORD}", "remove the file"
            kept = build(HierarchyScores, scores, what, remedy=remedy)
            for values in (kept.best_per_dataset, kept.best_per_image, kept.best_level):
                for measure in MEASURES:
                    real(values.get(measure), f"{measure} of {what}")
            found[method] = kept
    return found
