"""From images to rows: what runs in every process, of the local engine and of Ray's."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cast_sdk.decoding.reader import decode
from cast_sdk.errors import CastError
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


class Rows:
    """Makes the rows of tasks whose items are (index, `Item`)."""

    def __init__(self, layout: Layout, runtime: Runtime) -> None:
        self._layout, self._runtime = layout, runtime
        self._schema = layout.schema()
        self._reader = Reader()

    def __call__(self, task: Task[tuple[int, Item]], started: Callable[[int], None]) -> bytes:
        """The rows as an Arrow record batch in IPC form, one per item, in order."""
        rows: list[dict[str, Any]] = []
        waiting: list[tuple[dict[str, Any], Prepared]] = []
        size = self._runtime.info.batch or 1
        for position, (index, item) in enumerate(task.items):
            row: dict[str, Any] = {"index": index, "path": item.path}
            rows.append(row)
            if position in task.failed:
                row["error"] = task.failed[position]
                continue
            started(position)
            try:
                data = self._reader.read(item)
                row["sha256"] = hashlib.sha256(data).hexdigest()
                frame = decode(data, item.path)
                waiting.append((row, self._runtime.add_superpixels(self._runtime.prepare(frame))))
            except (CastError, MemoryError) as error:
                row["error"] = str(error) or type(error).__name__
            # A second try finds the image that ends the process, also where several share one pass of the network.
            if len(waiting) >= (1 if task.tries else size):
                self._finish(waiting)
        self._finish(waiting)
        started(-1)
        return bytes(batch(self._schema, rows).serialize())

    def _finish(self, waiting: list[tuple[dict[str, Any], Prepared]]) -> None:
        outputs = self._runtime.infer([prepared for _, prepared in waiting])
        for (row, prepared), output in zip(waiting, outputs, strict=True):
            try:
                row.update(self._layout.row(self._runtime.finish(prepared, output)))
            except CastError as error:
                row["error"] = str(error)
        waiting.clear()


def read_batch(data: bytes, schema: pa.Schema) -> pa.RecordBatch:
    """The batch that `Rows` made."""
    return pa.ipc.read_record_batch(pa.py_buffer(data), schema)
