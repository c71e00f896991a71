"""What is to be read: images in folders, lists, tar shards, Parquet files and behind addresses, one after another."""

from __future__ import annotations

import glob
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from cast_sdk.errors import InputError
from cast_sdk.images import is_image
from cast_sdk.runtime.bulk.addresses import (
    address_of,
    check_address,
    is_address,
    open_address,
    open_source,
    said,
    source_of,
)
from cast_sdk.runtime.sources.folders import Found, walk
from cast_sdk.runtime.sources.kinds import file_kind
from cast_sdk.system.files import kind_at

LISTS = (".txt", ".lst", ".list")  # one path or address a line
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BYTES_COLUMNS, _PATH_COLUMNS = ("image", "bytes"), ("path", "image_path", "file_name", "url")

Kind = Literal["file", "tar", "parquet"]


@dataclass(frozen=True)
class Item:
    """Where one image is.

    Attributes:
        path: its name in the data set.
        source: the file or address that is opened.
        kind: "file": the source itself; "tar": `size` bytes at `first`; "parquet": row `size` of row group `first`.
        first, size: see `kind`.
        column: of a Parquet file.
    """

    path: str
    source: str
    kind: Kind = "file"
    first: int = 0
    size: int = 0
    column: str = ""


@dataclass
class Listing:
    """All images of the arguments of a command.

    Args:
        inputs: folders, images, list files, tar and Parquet files, patterns, and addresses that fsspec opens.
        column: of Parquet files, that holds the images or their paths; None: `image` or `bytes`, or else `path`,
            `image_path`, `file_name` or `url`, where there is exactly one of them.

    Attributes:
        left_out: lines about files of folders that are not read, complete once all items were taken.
    """

    inputs: Sequence[str]
    column: str | None = None
    left_out: list[str] = field(default_factory=list)

    def items(self) -> Iterator[Item]:
        """The images, in order. An image that is named twice comes twice.

        Raises:
            InputError: an input that is not there, holds no image or is of no known kind.
        """
        for text in self.inputs:
            for name in _expand(text):
                yield from self._input(name)

    def _input(self, name: str) -> Iterator[Item]:
        source = source_of(name)
        if is_address(source):
            check_address(name)
            fs, path = open_address(name)
            try:
                folder = fs.isdir(path)
            except Exception as error:
                raise InputError(
                    f"{name} cannot be looked at.", found=said(error), remedy="check the address and the network"
                ) from error
            found = self._remote_folder(fs, path, name) if folder else self._named(name, source)
        elif kind_at(name) == "folder":
            found = self._folder(Path(name))
        elif kind_at(name) == "nothing":
            raise InputError(f"There is no file or folder {name}.", remedy="check the path")
        else:
            found = self._named(name, source)
        count = 0
        for count, item in enumerate(found, 1):  # noqa: B007
            yield item
        if not count:
            raise InputError(
                f"There are no images in {name}.",
                found="; ".join(self.left_out) or None,
                remedy="name images, folders that hold some, list files (.txt), .tar or .parquet files",
            )

    def _folder(self, folder: Path) -> Iterator[Item]:
        found = Found()
        for kind, path in walk(folder, found):
            if kind == "image":
                yield Item(os.fspath(path), os.path.abspath(path))  # noqa: PTH100
            else:
                found.leave_out("videos; cast-segment reads them", path)
        self.left_out += found.summary()

    def _remote_folder(self, fs: Any, folder: str, name: str) -> Iterator[Item]:
        others = 0
        for root, folders, files in fs.walk(folder):
            folders.sort()
            for file in sorted(files):
                if is_image(file):
                    yield Item(*2 * (address_of(fs, f"{root.rstrip('/')}/{file}", name),))
                else:
                    others += 1
        if others:
            self.left_out.append(f"left out files of {name} whose names are no images' ({others})")

    def _named(self, name: str, source: str) -> Iterator[Item]:
        lower = (name.partition("::")[0].partition("?")[0] if is_address(source) else name).lower()
        if lower.endswith(_PACKED):
            raise InputError(
                f"{name} is packed, so no image can be read without all before it.",
                remedy="unpack it to a .tar file, for instance with gunzip",
            )
        if lower.endswith(".tar"):
            return _members(name, source)
        if lower.endswith((".parquet", ".pq")):
            return self._rows(name, source)
        if lower.endswith(LISTS):
            return _lines(name, source)
        if is_address(source) or is_image(name) or file_kind(source) == "image":
            return iter([Item(name, source)])
        raise InputError(
            f"{name} is neither an image nor a list of images.",
            remedy="lists end with .txt, shards with .tar, tables with .parquet",
        )

    def _rows(self, name: str, source: str) -> Iterator[Item]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with open_source(source) as file:
            try:
                table = pq.ParquetFile(file)
            except (pa.ArrowException, OSError) as error:
                raise InputError(
                    f"{name} cannot be read as Parquet.", found=str(error), remedy="copy the file again"
                ) from error
            column = self._column(name, table.schema_arrow)
            kind = table.schema_arrow.field(column).type
            if _holds_bytes(kind):
                for group in range(table.num_row_groups):
                    for row in range(table.metadata.row_group(group).num_rows):
                        yield Item(f"{name}#{group}.{row}", source, "parquet", group, row, column)
                return
            for batch in table.iter_batches(columns=[column]):
                for path in batch.column(0).to_pylist():
                    yield _listed(path or "", name, source)

    def _column(self, name: str, schema: Any) -> str:
        usable = [one.name for one in schema if _holds_bytes(one.type) or _holds_text(one.type)]
        if self.column is not None:
            if self.column in usable:
                return self.column
            remedy = f"choose --column {', '.join(usable)}" if usable else "choose another file"
            raise InputError(f"{name} has no column {self.column!r} of bytes or text.", remedy=remedy)
        for names, holds in ((_BYTES_COLUMNS, _holds_bytes), (_PATH_COLUMNS, _holds_text)):
            found = [one.name for one in schema if one.name in names and holds(one.type)]
            if len(found) == 1:
                return str(found[0])
            if found:
                break
        raise InputError(
            f"It is not clear which column of {name} holds the images.",
            found=f"columns {', '.join(schema.names)}",
            remedy=f"name it: --column {' or '.join(usable) or 'NAME'}",
        )


def _expand(text: str) -> list[str]:
    """One argument: a quoted pattern stands for what it matches, sorted."""
    if "\0" in text or not text:
        raise InputError(f"{text!r} is no name of a file.", remedy="check the path")
    if not glob.has_magic(text) or os.path.lexists(text):
        return [text]
    if is_address(text):
        if text.startswith(("http://", "https://")):  # a ? there begins the query
            return [text]
        fs, path = open_address(text)
        names = [address_of(fs, found, text) for found in sorted(fs.glob(path))]
    else:
        names = sorted(glob.glob(text, recursive=True))  # noqa: PTH207
    if not names:
        raise InputError(f"Nothing matches {text}.", remedy="check the pattern")
    return names


def _listed(path: str, name: str, source: str) -> Item:
    """The image that a list means: a path from the list's folder, or an address. `name`, `source`: of the list."""
    if not path or path.startswith("/"):
        return Item(path, source_of(path))
    beside = _beside(path, source)
    local = not is_address(source)
    if is_address(path) and not (local and os.path.lexists(beside)):
        check_address(path)
        return Item(path, path)
    return Item(_beside(path, name), os.path.abspath(beside) if local else beside)  # noqa: PTH100


def _beside(path: str, name: str) -> str:
    folder, slash, _ = name.rpartition("/")
    return f"{folder}{slash}{path}"


def _lines(name: str, source: str) -> Iterator[Item]:
    with open_source(source) as file:
        for line in file:
            path = os.fsdecode(line.rstrip(b"\r\n"))
            if path.strip():
                yield _listed(path, name, source)


def _members(name: str, source: str) -> Iterator[Item]:
    with open_source(source) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    if member.isreg() and is_image(PurePosixPath(member.name)) and not member.issparse():
                        path = f"tar://{member.name}::{name}"
                        yield Item(path, source, "tar", member.offset_data, member.size)
                    archive.members = []  # type: ignore[attr-defined]  # it keeps every member otherwise
        except tarfile.TarError as error:
            raise InputError(
                f"{name} is not a whole, unpacked tar file.", found=str(error), remedy="copy or unpack it again"
            ) from error


def _holds_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):  # as the data sets of Hugging Face have images: {bytes, path}
        return any(kind.field(i).name == "bytes" and _holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _holds_text(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind))
