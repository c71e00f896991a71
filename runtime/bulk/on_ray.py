"""The rows of a data set on Ray: on every core of this machine or of a cluster."""

from __future__ import annotations

import itertools
import json
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cast_sdk.runtime.bulk.job import Engine, Images
from cast_sdk.runtime.bulk.pool import Pool
from cast_sdk.runtime.bulk.rows import Made, Recipe
from cast_sdk.system.processor import available_cores

WINDOW = 16384  # tasks that Ray is given at once; the rest of the list stays on the disk
_BLOCK = 4  # tasks that Ray hands out together
_RETRIES = 10  # of such a block, where Ray's own processes or machines end
_ONE_FILE = (".onnx", ".pth", ".tar", ".safetensors")  # models that are sent to other machines


def ray_engine(workers: int | None, address: str | None) -> Engine:
    """Processes wherever Ray has a core. Ray's usage statistics are off.

    Args:
        workers: how many; None: one per core.
        address: of a running cluster; None: a new one on this machine.
    """

    def run(
        recipe: Recipe, tasks: Iterator[Images], ended: Callable[[Images, int, str], None]
    ) -> Iterator[tuple[Images, Made]]:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        logging.getLogger("ray").setLevel(logging.WARNING)
        import ray
        import ray.data

        own = not ray.is_initialized()
        if own and address:
            ray.init(address=address, log_to_driver=False)
        elif own:
            ray.init(num_cpus=workers or available_cores(), include_dashboard=False, log_to_driver=False)
        try:
            context = ray.data.DataContext.get_current()
            context.execution_options.preserve_order = True
            context.enable_progress_bars = False
            count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            shared = ray.put(_with_model(recipe))  # held here, so that it is there when an actor is started again
            while window := list(itertools.islice(tasks, WINDOW)):
                yield from _window(ray, shared, window, count, ended)
        finally:
            if own:
                ray.shutdown()

    return run


class Worker:
    """What Ray runs: it has a process of its own for the images, so that none of them ends it."""

    def __init__(self, shared: list[Any]) -> None:
        import ray

        recipe: Recipe = ray.get(shared[0])
        self._ended: list[tuple[int, str]] = []
        self._pool = Pool(recipe, 1, ended=lambda task, position, reason: self._ended.append((position, reason)))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self._ended.clear()
        task: Images = pickle.loads(row["task"])
        ((_, made),) = self._pool.run([task])
        ended, unforeseen = json.dumps(self._ended), json.dumps(made.unforeseen)
        return {"number": task.number, "rows": made.rows, "ended": ended, "unforeseen": unforeseen}


def _window(
    ray: Any, shared: Any, tasks: list[Images], count: int, ended: Callable[[Images, int, str], None]
) -> Iterator[tuple[Images, Made]]:
    by_number = {task.number: task for task in tasks}
    items = [{"task": pickle.dumps(task)} for task in tasks]
    blocks = max(1, len(items) // _BLOCK)
    # From 1 to `count`: a cluster that is busy elsewhere is waited for by none of them.
    results = ray.data.from_items(items, override_num_blocks=blocks).map(
        Worker,
        fn_constructor_args=([shared],),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count),
        num_cpus=1,
        ray_remote_args_fn=_restarts,
    )
    for row in results.iter_rows():
        task = by_number.pop(row["number"])
        for position, reason in json.loads(row["ended"]):
            ended(task, position, reason)
        yield task, Made(row["rows"], tuple(json.loads(row["unforeseen"])))


def _restarts() -> dict[str, Any]:
    """Options of Ray's actors: started again as often as they end, but no block is tried for ever."""
    return {"max_restarts": -1, "max_task_retries": _RETRIES}


def _with_model(recipe: Recipe) -> Recipe:
    """The recipe with the bytes of the model: other machines do not have the file."""
    path = Path(str(recipe.options["model"]))
    if recipe.model is not None or path.suffix not in _ONE_FILE:
        return recipe
    return replace(recipe, model=path.read_bytes())
