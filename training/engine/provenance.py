"""What made the files of a folder, in a record beside them: so that nothing is kept as the result of something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cast_sdk._version import __version__
from cast_sdk.errors import InputError, RecipeError
from cast_sdk.system.files import atomic_write, read_json

FILE = "made_by.json"


def fingerprint(parts: Iterable[Any]) -> str:
    """Hex digest of data: equal for equal parts in the same order."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part if isinstance(part, bytes) else repr(part).encode())
        total.update(b"\0")
    return total.hexdigest()[:32]


def of_files(files: Iterable[tuple[str, Path]]) -> str:
    """A fingerprint of files by their names and sizes: without reading them, and equal for a copy of the data.

    Args:
        files: the name of each within its data set, which tells equal names in two folders apart, and where it is.
    """
    return fingerprint((name, path.stat().st_size) for name, path in files)


def of_model(model: Any) -> str:
    """A fingerprint of the weights of a torch module."""
    state = model.state_dict()
    return fingerprint(part for key in sorted(state) for part in (key, state[key].cpu().contiguous().numpy().tobytes()))


def read(file: Path) -> dict[str, Any] | None:
    """What a record says; None where it is missing, or is none of this package's."""
    try:
        record = read_json(file)
    except InputError:
        return None
    ours = isinstance(record, dict) and "cast_sdk" in record and isinstance(record.get("made_by"), dict)
    return record["made_by"] if ours else None


def write(file: Path, description: Mapping[str, Any]) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps({"made_by": description, "cast_sdk": __version__}, indent=1))


def differences(before: Any, now: Any, where: str = "") -> Iterable[str]:
    """What two descriptions say differently, for people."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif before != now:
        if where == "fingerprint":
            yield "its images, classes or split are not the same any more"
        else:
            yield f"{where.removeprefix('recipe.')}: {before!r} there, {now!r} now"


def _counts(path: Path) -> bool:
    """Whether a file of a folder may be a result: none that is hidden, or that the file system made itself."""
    return not path.name.startswith(".") and path.name not in (FILE, "lost+found")


def keep(folder: Path, description: Mapping[str, Any]) -> None:
    """Make a folder whose finished files are kept, or find it again.

    Args:
        folder: of the files; the record lies in it.
        description: plain values that decide what the files hold.

    Raises:
        RecipeError: something else made the files that are there, or nobody knows what did.
    """
    now = json.loads(json.dumps(description))
    before = read(folder / FILE)
    if before == now:
        return
    if before is None and folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder} is no folder.", remedy="choose another --out")
    if folder.is_dir() and any(map(_counts, folder.iterdir())):
        if before is None and (before := read(folder / FILE)) == now:
            return  # another process of this run has just made the folder
        raise RecipeError(
            f"{folder} holds the results of something else."
            if before
            else f"{folder} holds files, and no {FILE} that says what made them.",
            found="; ".join(list(differences(before, now))[:4]) if before else None,
            remedy="choose another --out, or remove the folder",
        )
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / FILE, now)
