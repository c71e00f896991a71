"""The bytes of an image, wherever it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import IO, Any

from cast_sdk.errors import InputError
from cast_sdk.runtime.bulk.addresses import is_address, open_source, said
from cast_sdk.runtime.bulk.inputs import Item

MAX_BYTES = 1 << 30  # of one image
_REMOTE_TRIES = 3  # a network may fail once
_FOR_GOOD = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, ImportError)
_REREAD = "check the disk or the network, then make the data set anew in another folder"


class Reader:
    """Reads images. Keeps the last tar or Parquet file open, so that images which follow each other are read fast."""

    def __init__(self) -> None:
        self._name = ""
        self._file: IO[bytes] | None = None
        self._rows: _Rows | None = None

    def read(self, item: Item) -> bytes:
        """The encoded image.

        Raises:
            InputError: it is not there, is too large or cannot be read.
        """
        if not item.source:
            raise InputError("The image has no path.", remedy="fill the gap in the column of paths")
        for tried in range(1, _REMOTE_TRIES + 1):
            try:
                return self._read(item)
            except FileNotFoundError as error:
                raise InputError(
                    f"There is no image {item.path}.", remedy="check the path; a list's paths are seen from its folder"
                ) from error
            except InputError as error:
                if not is_address(item.source) or not _may_pass(error.__cause__):
                    raise
                failure: Exception = error
            except Exception as error:
                failure = InputError(f"{item.path} cannot be read.", found=said(error), remedy=_REREAD)
                failure.__cause__ = error
            self.close()
            if tried == _REMOTE_TRIES or not is_address(item.source):
                raise failure
            time.sleep(tried)
        raise AssertionError("it returned or raised")

    def close(self) -> None:
        """Close what is open."""
        if self._file is not None:
            self._file.close()
        self._name, self._file, self._rows = "", None, None

    def _read(self, item: Item) -> bytes:
        if item.kind == "file":
            with closing(open_source(item.source)) as file:
                data = file.read(MAX_BYTES + 1)
        elif item.kind == "tar":
            file = self._opened(item.source)
            file.seek(item.first)
            data = file.read(min(item.size, MAX_BYTES + 1))
            if len(data) < min(item.size, MAX_BYTES + 1):
                found = f"{len(data)} of {item.size} bytes"
                raise InputError(
                    f"The shard of {item.path} ends before the image does.", found=found, remedy=_REREAD
                ) from EOFError(found)
        else:
            data = self._row(item)
        if len(data) > MAX_BYTES:
            raise InputError(f"The image has more than {MAX_BYTES >> 20} MiB.", remedy="check what it is")
        return data

    def _opened(self, source: str) -> IO[bytes]:
        if self._name != source or self._file is None:
            self.close()
            self._name, self._file = source, open_source(source)
        return self._file

    def _row(self, item: Item) -> bytes:
        place = (item.source, item.column, item.first)
        if self._rows is None or self._rows.place != place or self._rows.next > item.size:
            self._rows = _Rows(place, self._opened(item.source))
        data = self._rows.take(item.size)
        if data is None:
            raise InputError("The row holds no image.", found="null", remedy="fill the gap in the column of images")
        return data


def _may_pass(cause: BaseException | None) -> bool:
    """Whether another try may end otherwise: an error without a cause is about the image itself."""
    return cause is not None and not isinstance(cause, _FOR_GOOD)


class _Rows:
    """The rows of one row group of a Parquet file, taken in ascending order."""

    def __init__(self, place: tuple[str, str, int], file: IO[bytes]) -> None:
        import pyarrow.parquet as pq

        self.place, self.next = place, 0
        _, column, group = place
        batches = pq.ParquetFile(file).iter_batches(16, row_groups=[group], columns=[column])
        self._values = (value for batch in batches for value in _binary(batch.column(0)))

    def take(self, row: int) -> bytes | None:
        for value in self._values:
            self.next += 1
            if self.next > row:
                return value.as_py()
        raise InputError("The row group is shorter than it was.", remedy="make the data set anew in another folder")


def _binary(column: Any) -> Iterator[Any]:
    import pyarrow as pa

    if pa.types.is_struct(column.type):
        column = column.field("bytes")
    return iter(column)
