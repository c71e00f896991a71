"""From images to rows: what runs in every process, of the local engine and of Ray's.

An image that cannot be used is a row with its error, also where its pixels bring about what nobody foresaw. What the
network itself ends with is no fault of an image, and ends the work.
"""

from __future__ import annotations

import hashlib
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from cast_sdk.decoding.reader import decode
from cast_sdk.errors import CastError, EngineError
from cast_sdk.runtime.bulk.inputs import Item
from cast_sdk.runtime.bulk.pool import Task
from cast_sdk.runtime.bulk.reader import Reader
from cast_sdk.runtime.bulk.schema import Layout, batch
from cast_sdk.runtime.preprocess import Prepared
from cast_sdk.runtime.runtime import Runtime


@dataclass(frozen=True)
class Recipe:
    """How rows are made; called in a process, it opens the model. Can be sent to other processes and machines.

    Attributes:
        layout: what rows hold.
        options: of `Runtime`, among them the path of the model.
        model: the bytes of the model's file, for machines that do not have it.
    """

    layout: Layout
    options: dict[str, Any]
    model: bytes | None = None

    def __call__(self) -> Rows:
        options = dict(self.options)
        if self.model is not None:
            name = Path(str(options.pop("model"))).name
            with tempfile.TemporaryDirectory(prefix="cast-bulk-") as folder:
                path = Path(folder) / name
                path.write_bytes(self.model)
                return Rows(self.layout, Runtime(path, **options))
        return Rows(self.layout, Runtime(**options))


class Made(NamedTuple):
    """What a task became.

    Attributes:
        rows: an Arrow record batch in IPC form, one row per item, in order.
        unforeseen: a traceback for each image whose error nobody foresaw.
    """

    rows: bytes
    unforeseen: tuple[str, ...] = ()


class Rows:
    """Makes the rows of tasks whose items are (index, `Item`)."""

    def __init__(self, layout: Layout, runtime: Runtime) -> None:
        self._layout, self._runtime = layout, runtime
        self._schema = layout.schema()
        self._reader = Reader()

    def __call__(self, task: Task[tuple[int, Item]], started: Callable[[int], None]) -> Made:
        """The rows of a task.

        Raises:
            CastError: the network cannot be run.
        """
        rows: list[dict[str, Any]] = []
        waiting: list[tuple[dict[str, Any], Prepared]] = []
        unforeseen: list[str] = []
        size = self._runtime.info.batch or 1
        for position, (index, item) in enumerate(task.items):
            row: dict[str, Any] = {"index": index, "path": item.path}
            rows.append(row)
            if position in task.failed:
                row["error"] = task.failed[position]
                continue
            started(position)
            with _kept(row, unforeseen):
                data = self._reader.read(item)
                row["sha256"] = hashlib.sha256(data).hexdigest()
                frame = decode(data, item.path)
                waiting.append((row, self._runtime.add_superpixels(self._runtime.prepare(frame))))
            # A second try finds the image that ends the process, also where several share one pass of the network.
            if len(waiting) >= (1 if task.tries else size):
                self._finish(waiting, unforeseen)
        self._finish(waiting, unforeseen)
        started(-1)
        return Made(bytes(batch(self._schema, rows).serialize()), tuple(unforeseen))

    def _finish(self, waiting: list[tuple[dict[str, Any], Prepared]], unforeseen: list[str]) -> None:
        for (row, prepared), output in zip(waiting, self._infer(waiting), strict=True):
            with _kept(row, unforeseen):
                row.update(self._layout.row(self._runtime.finish(prepared, output)))
        waiting.clear()

    def _infer(self, waiting: list[tuple[dict[str, Any], Prepared]]) -> list[dict[str, Any]]:
        try:
            return self._runtime.infer([prepared for _, prepared in waiting])
        except CastError:
            raise
        except Exception as error:
            fewer = "use fewer processes (--workers 1)" if isinstance(error, MemoryError) else "check the device"
            raise EngineError(
                "The network cannot be run any more.",
                found=f"{type(error).__name__}: {error}".rstrip(": "),
                remedy=f"{fewer}, then give the same command again: it goes on",
            ) from error


@contextmanager
def _kept(row: dict[str, Any], unforeseen: list[str]) -> Iterator[None]:
    """What one image ends with becomes the error of its row; of what nobody foresaw the traceback is kept too."""
    try:
        yield
    except CastError as error:
        row["error"] = str(error)
    except MemoryError as error:  # the image is too large for this machine
        row["error"] = str(error) or type(error).__name__
    except Exception as error:
        unforeseen.append(f"{row['path']}\n{traceback.format_exc()}")
        row["error"] = str(
            EngineError(
                "The image could not be segmented, for a reason that nobody foresaw.",
                found=f"{type(error).__name__}: {error}",
                remedy="see the traceback with -v (a new --out makes the row again), and report it with the image",
            )
        )


def read_batch(data: bytes, schema: pa.Schema) -> pa.RecordBatch:
    """The batch that `Rows` made."""
    return pa.ipc.read_record_batch(pa.py_buffer(data), schema)
