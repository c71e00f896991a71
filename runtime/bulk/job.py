"""The whole way: list the images, make the rows that are missing, write parts, finish the manifest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pyarrow as pa

from cast_sdk.runtime.bulk.dataset import Dataset, chunks
from cast_sdk.runtime.bulk.inputs import Item
from cast_sdk.runtime.bulk.pool import Pool, Task
from cast_sdk.runtime.bulk.rows import Made, Recipe, read_batch

log = logging.getLogger(__name__)
CHUNK = 16  # images of a task: what is done again when a process is killed

Images = Task[tuple[int, Item]]


class Engine(Protocol):
    """What runs tasks somewhere."""

    def __call__(
        self, recipe: Recipe, tasks: Iterator[Images], ended: Callable[[Images, int, str], None]
    ) -> Iterable[tuple[Images, Made]]:
        """Each task with what it became, in order."""


@dataclass
class Progress:
    """How far the work is; `rows` and `errors` count those of this run."""

    total: int = 0
    before: int = 0
    rows: int = 0
    errors: int = 0


def local_engine(workers: int) -> Engine:
    """Processes of this machine."""

    def run(
        recipe: Recipe, tasks: Iterator[Images], ended: Callable[[Images, int, str], None]
    ) -> Iterator[tuple[Images, Made]]:
        with Pool(recipe, workers, ended=ended) as pool:
            yield from pool.run(tasks)

    return run


def run(
    dataset: Dataset, recipe: Recipe, engine: Engine, report: Callable[[Progress], None] = lambda progress: None
) -> dict[str, Any]:
    """Make what is missing; returns the manifest.

    Args:
        dataset: whose images are listed.
        recipe: of the rows.
        engine: where they are made.
        report: called once before the work and after each task.

    Raises:
        CastError: the model cannot be opened, a part cannot be written, ...; what is finished stays.
    """
    parts = dataset.parts()
    missing = [number for number, rows in enumerate(parts.rows) if not dataset.finished(number, rows)]
    progress = Progress(total=sum(parts.rows), before=sum(parts.rows) - sum(parts.rows[number] for number in missing))
    report(progress)
    if missing:
        _make(dataset, recipe, engine, missing, partial(report, progress), progress)
    return dataset.complete()


def _make(
    dataset: Dataset,
    recipe: Recipe,
    engine: Engine,
    missing: list[int],
    report: Callable[[], None],
    progress: Progress,
) -> None:
    parts, before = dataset.parts(), dataset.ended()

    def tasks() -> Iterator[Images]:
        number = 0
        for part in missing:
            for items in chunks(parts.items(part), CHUNK):
                task: Images = Task(number, items)
                for position, (index, _) in enumerate(items):
                    for _try in range(before[index]):
                        task.fail(position, "seen in an earlier run of this command")
                yield task
                number += 1

    def ended(task: Images, position: int, reason: str) -> None:
        index, item = task.items[position]
        dataset.add_ended(index, item.path, reason)

    waiting = iter(missing)
    part, rows, batches = next(waiting), 0, []
    for _, made in engine(recipe, tasks(), ended):
        for text in made.unforeseen:
            log.debug("%s", text)
        batch: pa.RecordBatch = read_batch(made.rows, dataset.schema)
        batches.append(batch)
        rows += batch.num_rows
        progress.rows += batch.num_rows
        progress.errors += batch.num_rows - batch.column("error").null_count
        report()
        if rows == parts.rows[part]:
            dataset.write_part(part, batches)
            part, rows, batches = next(waiting, -1), 0, []
