"""The record in a folder of results: which file was made from which input, and with which settings.

`cast-segment.jsonl` holds one JSON object a line. A line with `settings` says what the lines after it were made with; a
line with `files` names what is about to be written; a line with `source` describes one input (absolute path, size, time
and inode, SHA-256) and the files made from it, with their sizes. A later line about the same source replaces an earlier
one. Lines are appended as work goes on, so a process that is killed loses none of them and leaves no file that the
record does not know; a last line that is cut off is passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from cast_sdk.errors import InputError
from cast_sdk.system.files import kind_at, lock, sha256, writing

NAME = "cast-segment.jsonl"
_BEGIN = b'{"settings":'


@dataclass(frozen=True)
class Identity:
    """What tells one input from another: size in bytes, time of change in nanoseconds, inode and SHA-256."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Identity:
        info = path.stat()
        return cls(info.st_size, info.st_mtime_ns, info.st_ino, sha256(path))

    def still_of(self, path: Path) -> bool:
        """True when the file at `path` is the same input. It is only read where size, time and inode leave doubt."""
        try:
            info = path.stat()
            if info.st_size != self.size:
                return False
            if (info.st_mtime_ns, info.st_ino) == (self.mtime_ns, self.inode):
                return True
            return sha256(path) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class Entry:
    """One input and what was made from it: the files' paths below the folder, with their sizes in bytes."""

    stem: str
    identity: Identity
    settings: str
    outputs: dict[str, int] = field(default_factory=dict)


def recorded(folder: Path) -> set[Path]:
    """Resolved paths of the files that the record of a folder lists, and of the record itself."""
    names = {NAME}
    for record in _lines(folder / NAME):
        listed = record.get("files", record.get("outputs", ()))
        names.update(name for name in listed if _is_below(name))
    return {(folder / name).resolve() for name in names}


class Results:
    """The record of a folder of results, open for one command.

    Args:
        folder: made if it is not there.
        settings: what results depend on, as JSON data.
        overwrite: make results again that other settings made.

    Raises:
        InputError: the folder holds results of other settings, or another process writes into it now.
        ExportError: the folder or the record cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, overwrite: bool = False) -> None:
        self.folder = folder
        self._digest = _digest(settings)
        self._taken: dict[str, str] = {}  # stem, folded to lower case -> source
        self._entries: dict[str, Entry] = {}
        self._made: set[str] = set()  # every file below the folder that this record lists
        if "\0" in str(folder):
            raise InputError(f"{str(folder)!r} is no name of a folder.", remedy="choose another --out")
        if kind_at(folder) not in ("folder", "nothing"):
            raise InputError(f"{folder} is a file or device and no folder.", remedy="choose another --out")
        before = self._read(folder / NAME)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if before is not None and before != settings and self._entries and not overwrite:
            raise InputError(
                f"{folder} holds results of another model or other options.",
                found="; ".join(_differences(before, settings)),
                remedy="choose another --out, or add --overwrite to make all of them again",
            )
        with writing(folder / NAME):
            self._file: TextIO = (folder / NAME).open("a", encoding="utf-8")
        try:
            lock(self._file, folder)
            self._end_line()
            if before != settings:
                self._append({"settings": settings})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def stem(self, source: Path, wanted: Path, suffixes: Sequence[str]) -> Path:
        """The name of a source's results below the folder, without suffix: the one it had before, or a free one.

        A name is free when no other source has it and no file that this record does not list stands there.

        Args:
            source: the input.
            wanted: the name it would like to have.
            suffixes: of all files that may be made under the name.
        """
        key = _key(source)
        if key in self._entries:
            return Path(self._entries[key].stem)
        blocked = self._is_foreign(wanted, suffixes)
        for stem in _candidates(wanted, "" if blocked else source.suffix):
            holder = self._taken.get(_folded(stem), key)
            if holder == key and not self._is_foreign(stem, suffixes):
                self._taken[_folded(stem)] = key
                return stem
        raise AssertionError("names never run out")

    def finished(self, source: Path, outputs: Iterable[Path]) -> bool:
        """True when all outputs were made from this very input with these settings, and are there as they were."""
        entry = self._entries.get(_key(source))
        if entry is None or entry.settings != self._digest:
            return False
        for path in outputs:
            size = entry.outputs.get(path.relative_to(self.folder).as_posix())
            try:
                if size is None or path.stat().st_size != size:
                    return False
            except OSError:
                return False
        return entry.identity.still_of(source)

    def begin(self, outputs: Iterable[Path]) -> None:
        """Claim files below the folder just before they are written."""
        names = [path.relative_to(self.folder).as_posix() for path in outputs]
        self._append({"files": names})
        self._made.update(names)

    def add(self, source: Path, identity: Identity, stem: Path, outputs: Iterable[Path]) -> None:
        """Record the finished outputs of a source.

        Args:
            source: the input.
            identity: what it was when it was read.
            stem: see `stem`.
            outputs: files below the folder.
        """
        sizes = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in outputs}
        entry = Entry(stem.as_posix(), identity, self._digest, sizes)
        self._append({"source": _key(source), "stem": entry.stem, **vars(identity), "outputs": sizes})
        self._keep(_key(source), entry)

    def _keep(self, key: str, entry: Entry) -> None:
        self._entries[key] = entry
        self._taken[_folded(Path(entry.stem))] = key
        self._made.update(entry.outputs)

    def _is_foreign(self, stem: Path, suffixes: Sequence[str]) -> bool:
        """True when a file that this record does not list stands at a name with one of the suffixes."""
        names = [stem.with_name(stem.name + suffix).as_posix() for suffix in suffixes]
        return any(name not in self._made and os.path.lexists(self.folder / name) for name in names)

    def _append(self, record: dict[str, Any]) -> None:
        self._append_text(json.dumps(record, separators=(",", ":")) + "\n")

    def _end_line(self) -> None:
        """A line that a killed process left half-written must not swallow the next one."""
        path = self.folder / NAME
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size and (file.seek(size - 1), file.read(1))[1] != b"\n":
                self._append_text("\n")

    def _append_text(self, text: str) -> None:
        with writing(self.folder / NAME):
            self._file.write(text)
            self._file.flush()

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Fill the entries from the file; the settings of its last lines, None where there are none."""
        settings: dict[str, Any] | None = None
        for record in _lines(path):
            if isinstance(record.get("settings"), dict):
                settings = record["settings"]
            elif isinstance(record.get("files"), list):
                self._made.update(name for name in record["files"] if _is_below(name))
            elif settings is not None and (entry := _entry(record, _digest(settings))) is not None:
                self._keep(record["source"], entry)
        return settings


def _candidates(wanted: Path, suffix: str) -> Iterator[Path]:
    """NAME, NAME_jpg (for the suffix .jpg), NAME_segments, NAME_segments_2, ..."""
    yield wanted
    if suffix:
        yield wanted.with_name(f"{wanted.name}_{suffix[1:].lower()}")
    yield wanted.with_name(f"{wanted.name}_segments")
    number = 2
    while True:
        yield wanted.with_name(f"{wanted.name}_segments_{number}")
        number += 1


def _entry(record: dict[str, Any], settings: str) -> Entry | None:
    """A line about a source, if every field is there and of its type."""
    types = {"source": str, "stem": str, "size": int, "mtime_ns": int, "inode": int, "sha256": str, "outputs": dict}
    if not all(isinstance(record.get(name), kind) for name, kind in types.items()):
        return None
    if not all(isinstance(size, int) for size in record["outputs"].values()):
        return None
    if not all(_is_below(name) for name in (record["stem"], *record["outputs"])):
        return None
    identity = Identity(record["size"], record["mtime_ns"], record["inode"], record["sha256"])
    return Entry(record["stem"], identity, settings, record["outputs"])


def _is_below(name: Any) -> bool:
    """A record may come from a stranger: it names files below its folder only."""
    return isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a record; none where there is no file.

    Raises:
        InputError: it cannot be read, or is a file of somebody else, which nothing may be appended to.
    """
    if kind_at(path.parent) not in ("folder", "nothing"):
        raise InputError(f"{path.parent} is a file.", remedy="give --out a folder")
    kind = kind_at(path)
    if kind == "nothing":
        return
    if kind != "file":
        raise InputError(
            f"{path} is no ordinary file, so nothing can be recorded there.",
            remedy="move it away, or choose another --out",
        )
    try:
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    except OSError as error:
        raise InputError(f"The record {path} cannot be read.", found=error.strerror) from error
    records = [_record(line) for line in lines]
    # A killed process may have written a part of the first line, and a power loss may have spoiled it.
    begun = lines and (lines[0].startswith(_BEGIN) or _BEGIN.startswith(lines[0]))
    if lines and not begun and not any("settings" in record for record in records if record):
        raise InputError(
            f"{path} is no record of cast-segment, so nothing is recorded there.",
            remedy="move it away, or choose another --out",
        )
    yield from filter(None, records)


def _record(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        record = json.loads(line)
        if isinstance(record, dict):
            return record
    return None


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    names = dict.fromkeys((*before, *now))
    return [
        f"{name} {before.get(name)!r} before, {now.get(name)!r} now"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _key(source: Path) -> str:
    return os.path.abspath(source)  # noqa: PTH100 - a link is an input of its own


def _folded(stem: Path) -> str:
    """Names that differ in case alone would be one file on some file systems."""
    return stem.as_posix().casefold()
