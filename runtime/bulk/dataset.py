"""A data set in the making: its manifest, its list of images, and parts that appear whole or not at all.

`_manifest.json` says what is made, from which inputs and with which settings, and at the end which parts there are.
`_inputs.parquet` lists the images, one row group per part, so that a part is the same images however often work is
interrupted. `part-000000.parquet` and so on hold the rows. `_ended.jsonl` names images that ended a process. Readers of
Parquet folders pass over names that begin with an underscore.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cast_sdk import __version__
from cast_sdk.errors import ArtifactError, InputError
from cast_sdk.runtime.bulk.inputs import Item, Listing
from cast_sdk.runtime.bulk.schema import SCHEMA_VERSION, Layout
from cast_sdk.system.files import atomic_write, kind_at, lock, read_json, writing

_ANEW = "make the data set anew in another folder"
MANIFEST, INPUTS, ENDED = "_manifest.json", "_inputs.parquet", "_ended.jsonl"
_LISTED = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("source", pa.binary()),
        pa.field("kind", pa.string()),
        pa.field("first", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("column", pa.string()),
    ]
)


class Dataset:
    """The folder of a data set, open for one command; nothing in it that the command did not make is touched.

    Args:
        folder: made if it is not there.
        layout: of the rows.
        settings: what else the rows depend on, as JSON data; an interrupted command goes on with equal ones only.

    Raises:
        InputError: the folder holds something else, or another process writes into it now.
        ExportError: it cannot be written.
    """

    def __init__(self, folder: Path, layout: Layout, settings: dict[str, Any]) -> None:
        self.folder, self.layout = folder, layout
        self.schema = layout.schema()
        self._settings = {**settings, "layout": json.loads(json.dumps(asdict(layout)))}
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ENDED).exists():  # which the lock needs, and which a folder of others does not get
            self._read_manifest()
        if kind_at(folder / ENDED) == "other":
            raise InputError(f"{folder / ENDED} is a pipe, socket or device.", remedy="choose another --out")
        with writing(folder / ENDED):
            self._ended = (folder / ENDED).open("ab", buffering=0)  # so that closing it writes nothing more
        try:
            lock(self._ended, folder)
            manifest = self._read_manifest()
            self._started = manifest["started"] if manifest else _now()
            self.listed = manifest is not None
        except BaseException:
            self._ended.close()
            raise

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.close()

    # -- the list of images --------------------------------------------------------------------------------------------

    def list_inputs(self, listing: Listing, rows_per_part: int) -> None:
        """Write the list of images, and the manifest, which makes the folder a data set.

        Raises:
            InputError: see `Listing.items`.
        """
        with (
            atomic_write(self.folder / INPUTS) as temporary,
            pq.ParquetWriter(temporary, _LISTED, compression="zstd") as writer,
        ):
            for items in chunks(listing.items(), rows_per_part):
                columns = {
                    "path": [os.fsencode(item.path).decode(errors="backslashreplace") for item in items],
                    "source": [os.fsencode(item.source) for item in items],
                    **{name: [getattr(item, name) for item in items] for name in ("kind", "first", "size", "column")},
                }
                writer.write_table(pa.table(columns, schema=_LISTED), row_group_size=len(items))
        self._write_manifest(complete=False)
        self.listed = True

    def parts(self) -> Parts:
        """The parts, as the list of images has them."""
        return Parts(self.folder / INPUTS)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def part_path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def finished(self, number: int, rows: int) -> bool:
        """True when a part is there, whole.

        Raises:
            ArtifactError: something else stands at its name.
        """
        path = self.part_path(number)
        if not os.path.lexists(path):
            return False
        try:
            with _open(path) as file:
                if file.schema_arrow.equals(self.schema, check_metadata=True) and file.metadata.num_rows == rows:
                    return True
                found = f"{file.metadata.num_rows} rows of {len(file.schema_arrow)} columns"
        except (pa.ArrowException, OSError) as error:
            found = str(error)
        raise _foreign_part(path, found)

    def write_part(self, number: int, batches: Iterable[pa.RecordBatch]) -> None:
        """Write one part; it appears when it is on the disk.

        Raises:
            ExportError: it cannot be written; the rows of other parts are safe.
        """
        table = pa.Table.from_batches(list(batches), schema=self.schema)
        with atomic_write(self.part_path(number)) as temporary:
            pq.write_table(table, temporary, compression="zstd")
            with temporary.open("rb") as file:
                os.fsync(file.fileno())

    # -- images that end processes -------------------------------------------------------------------------------------

    def ended(self) -> Counter[int]:
        """How often each image, by index, has ended a process, in this and in earlier runs."""
        counts: Counter[int] = Counter()
        for line in (self.folder / ENDED).read_bytes().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):  # a line that was cut off
                counts[int(json.loads(line)["index"])] += 1
        return counts

    def add_ended(self, index: int, path: str, reason: str) -> None:
        """Record that an image has ended a process."""
        with writing(self.folder / ENDED):
            line = b"\n" + json.dumps({"index": index, "path": path, "reason": reason}).encode() + b"\n"
            while line:
                line = line[self._ended.write(line) :]

    # -- manifest ------------------------------------------------------------------------------------------------------

    def complete(self) -> dict[str, Any]:
        """Write the final manifest, once every part is there; returns it."""
        parts, errors = [], 0
        for number, rows in enumerate(self.parts().rows):
            path = self.part_path(number)
            try:
                failed = rows - _open(path).read(columns=["error"]).column("error").null_count
            except (pa.ArrowException, OSError) as error:
                raise _foreign_part(path, str(error)) from error
            errors += failed
            parts.append({"file": path.name, "rows": rows, "errors": failed, "bytes": path.stat().st_size})
        totals = {"rows": sum(part["rows"] for part in parts), "errors": errors}
        return self._write_manifest(complete=True, finished=_now(), **totals, parts=parts)

    def _write_manifest(self, **state: Any) -> dict[str, Any]:
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "created_by": f"cast_sdk {__version__}",
            "started": self._started,
            "settings": self._settings,
            "columns": {field.name: str(field.type) for field in self.schema},
            **state,
        }
        with atomic_write(self.folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1) + "\n")
        return manifest

    def _read_manifest(self) -> dict[str, Any] | None:
        path = self.folder / MANIFEST
        if not os.path.lexists(path):
            others = sorted(one.name for one in self.folder.iterdir() if not _begun(one.name))
            if others:
                raise InputError(
                    f"{self.folder} holds other files and no data set of cast-bulk.",
                    found=", ".join(others[:3]) + (", ..." if len(others) > 3 else ""),
                    remedy="choose another --out",
                )
            return None
        try:
            manifest: dict[str, Any] = read_json(path)
            before = manifest["settings"]
            manifest["started"]
        except (InputError, KeyError, TypeError) as error:
            found = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
            raise ArtifactError(
                f"{path} is no manifest of cast-bulk.", found=found, remedy="choose another --out"
            ) from error
        if before != self._settings:
            raise InputError(
                f"{self.folder} holds a data set of other inputs or settings.",
                found="; ".join(_differences(before, self._settings)),
                remedy="give the same command to go on, or choose another --out",
            )
        return manifest


class Parts:
    """The list of images, part by part."""

    def __init__(self, path: Path) -> None:
        try:
            self._path, self._file = path, _open(path)
            if not self._file.schema_arrow.equals(_LISTED):
                raise ArtifactError(f"{path} is no list of images of cast-bulk.", remedy=_ANEW)
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(f"{path} cannot be read.", found=str(error), remedy=_ANEW) from error
        metadata = self._file.metadata
        self.rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._firsts = [0, *accumulate(self.rows)]

    def items(self, number: int) -> Iterator[tuple[int, Item]]:
        """Index and place of each image of a part."""
        try:
            rows = self._file.read_row_group(number).to_pylist()
            items = [Item(**{**row, "source": os.fsdecode(row["source"])}) for row in rows]
        except (pa.ArrowException, OSError, TypeError) as error:
            raise ArtifactError(f"{self._path} cannot be read.", found=str(error), remedy=_ANEW) from error
        yield from enumerate(items, self._firsts[number])


def _open(path: Path) -> Any:
    """A Parquet file, if an ordinary file stands there."""
    if kind_at(path) != "file":
        raise OSError(f"{path.name} is no ordinary file")
    return pq.ParquetFile(path)


def _foreign_part(path: Path, found: str) -> ArtifactError:
    return ArtifactError(
        f"{path} is not the part that belongs there.",
        found=found,
        remedy="move it away; the same command then makes the part again",
    )


def _begun(name: str) -> bool:
    """Whether a file is one that a data set begins with, also where a killed process left it half-written."""
    half = name.startswith((f".{INPUTS}.", f".{MANIFEST}.")) and name.endswith(".tmp")
    return half or name in (ENDED, INPUTS)


def chunks(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of up to `size` values, none empty."""
    chunk: list[Any] = []
    for value in values:
        chunk.append(value)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys((*before, *now))
        return [line for key in keys for line in _differences(before.get(key), now.get(key), str(key))]
    return [] if before == now else [f"{name} {before!r} before, {now!r} now"]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
