"""The rows of a data set on Ray: on every core of this machine or of a cluster.

The command hands tasks to plain actors of Ray, one per core, and collects their rows in order. An actor that ends is
replaced, and what it had is handed out again, so no row waits for a machine that does not come back.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cast_sdk.errors import CastError, EngineError
from cast_sdk.runtime.bulk.job import Engine, Images
from cast_sdk.runtime.bulk.pool import Pool
from cast_sdk.runtime.bulk.rows import Made, Recipe
from cast_sdk.system.processor import available_cores

_AHEAD = 2  # calls that an actor holds: the one it works on, and one that waits there
_TASKS = 4  # of a call, once all have had smaller ones: between two calls an actor's process waits
_HELD = 4 * _TASKS  # tasks and results per actor that the command holds: memory is bounded
_RETRIES = 10  # of a call, where Ray's own processes or machines end
_STARTS = 5  # actors in a row that may end before any of them has begun
_CONNECT_SECONDS = 10.0
_ONE_FILE = (".onnx", ".pth", ".tar", ".safetensors")  # models that are sent to other machines

Call = list[Images]
Ended = Callable[[Images, int, str], None]


def ray_engine(workers: int | None, address: str | None) -> Engine:
    """Processes wherever Ray has a core. Ray's usage statistics are off.

    Args:
        workers: how many; None: one per core.
        address: of a running cluster; None: a new one on this machine.
    """

    def run(recipe: Recipe, tasks: Iterator[Images], ended: Ended) -> Iterator[tuple[Images, Made]]:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        own = not ray.is_initialized()
        if own and address:
            _join(ray, address)
        elif own:
            here = {"address": "local", "num_cpus": workers or available_cores(), "include_dashboard": False}
            _begin(ray, "Ray cannot be started.", "see Ray's logs", **here)
        try:
            count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            crew = _Crew(ray, ray.put(_with_model(recipe)), count, ended)
            try:
                yield from crew.run(tasks)
            finally:
                crew.close()
        finally:
            if own:
                ray.shutdown()

    return run


class Worker:
    """What Ray runs: it has a process of its own for the images, so that none of them ends it."""

    def __init__(self, recipe: Recipe) -> None:
        self._ended: list[tuple[int, int, str]] = []
        self._pool = Pool(recipe, 1, ended=lambda *seen: self._ended.append((seen[0].number, *seen[1:])))

    def begin(self) -> None:
        """Answers once the actor is there."""

    def make(self, tasks: Call) -> tuple[list[Made], list[tuple[int, int, str]]]:
        """The rows of each task; and the images that ended the process: task, position and what was seen."""
        self._ended.clear()
        return [made for _, made in self._pool.run(tasks)], list(self._ended)


@dataclass
class _Actor:
    """An actor as the command sees it. `calls`: what it has to do, by Ray's references to the results, oldest first."""

    handle: Any
    beginning: Any
    begun: bool = False
    calls: dict[Any, Call] = field(default_factory=dict)


class _Crew:
    """Actors that work through tasks, in order. They get work once they have begun: a busy cluster stops nobody."""

    def __init__(self, ray: Any, recipe: Any, count: int, ended: Ended) -> None:
        self._ray, self._recipe, self._ended = ray, recipe, ended
        self._class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Worker)
        self._actors = [self._start() for _ in range(count)]
        self._tries: collections.Counter[int] = collections.Counter()
        self._failed_starts = self._finished = 0

    def run(self, tasks: Iterator[Images]) -> Iterator[tuple[Images, Made]]:
        """Each task with its rows.

        Raises:
            CastError: what an actor raised.
            EngineError: actors end again and again.
        """
        waiting: collections.deque[Call] = collections.deque()  # given back by an actor that ended
        done: dict[int, tuple[Images, Made]] = {}
        following = 0
        exhausted = False
        while True:
            calls = [*waiting, *(call for actor in self._actors for call in actor.calls.values())]
            held = len(done) + sum(map(len, calls))
            while (actor := self._free()) is not None:
                if not waiting and not exhausted and held < _HELD * len(self._actors):
                    fresh = list(itertools.islice(tasks, self._size()))
                    exhausted = not fresh
                    held += len(fresh)
                    waiting.extend([fresh] if fresh else [])
                if not waiting:
                    break
                call = waiting.popleft()
                actor.calls[actor.handle.make.remote(call)] = call
            if exhausted and not held:
                return
            for task, made in self._news(waiting):
                done[task.number] = task, made
            while following in done:
                yield done.pop(following)
                following += 1

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            self._end(actor)

    def _start(self) -> _Actor:
        handle = self._class.remote(self._recipe)
        return _Actor(handle, handle.begin.remote())

    def _end(self, actor: _Actor) -> None:
        with contextlib.suppress(Exception):  # it, or the cluster, has ended already
            self._ray.kill(actor.handle)

    def _size(self) -> int:
        """Tasks of the next call: small ones first, so that few tasks are spread over all actors."""
        return min(_TASKS, 1 + self._finished // (_AHEAD * len(self._actors)))

    def _free(self) -> _Actor | None:
        """The actor that has least to do and takes another call."""
        free = [actor for actor in self._actors if actor.begun and len(actor.calls) < _AHEAD]
        return min(free, key=lambda actor: len(actor.calls), default=None)

    def _news(self, waiting: collections.deque[Call]) -> Iterator[tuple[Images, Made]]:
        """Wait for an actor; tasks with their rows, if it has made some. An actor that ended is replaced."""
        by_reference = {actor.beginning: actor for actor in self._actors if not actor.begun}
        by_reference.update((call, actor) for actor in self._actors for call in actor.calls)
        (reference,), _ = self._ray.wait(list(by_reference))
        actor = by_reference[reference]
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CastError):
                raise error.cause from None
            raise EngineError(
                "A worker of Ray failed.",
                found=str(error),
                remedy="give the same command again: it goes on; --engine local does without Ray",
            ) from error
        except self._ray.exceptions.RayError as error:
            waiting.extendleft(reversed(self._bury(actor, error)))
            return
        self._failed_starts = 0
        if reference == actor.beginning:
            actor.begun = True
            return
        call = actor.calls.pop(reference)
        self._finished += 1
        made, ended = result
        by_number = {task.number: task for task in call}
        for number, position, reason in ended:
            self._ended(by_number[number], position, reason)
        yield from zip(call, made, strict=True)

    def _bury(self, actor: _Actor, error: Exception) -> list[Call]:
        """Replace an actor that ended; what is to be done again."""
        calls = list(actor.calls.values())
        self._end(actor)
        if calls:
            self._tries[calls[0][0].number] += 1
        else:
            self._failed_starts += 1
        if self._failed_starts >= _STARTS or any(self._tries[call[0].number] > _RETRIES for call in calls):
            raise EngineError(
                "Ray's workers end again and again.",
                found=str(error).strip().splitlines()[-1],
                remedy="see Ray's logs; every machine of the cluster needs this package and free memory",
            ) from error
        self._actors[self._actors.index(actor)] = self._start()
        return calls


def _join(ray: Any, address: str) -> None:
    """Become a program of a running cluster. Ray itself would wait minutes for one that is not there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise EngineError(
                f"There is no Ray cluster at {address}.",
                found=str(error),
                remedy="start one (ray start --head), or check the address: auto, or HOST:PORT",
            ) from error
    versions = "Ray and Python must have the cluster's versions; where it has a token, set RAY_AUTH_MODE=token"
    _begin(ray, f"Ray cannot join the cluster {address}.", versions, address=address)


def _begin(ray: Any, problem: str, remedy: str, **options: Any) -> None:
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many kinds: no cluster, another version of Ray or Python, no right to join
        raise EngineError(problem, found=str(error).strip(), remedy=remedy) from error


def _with_model(recipe: Recipe) -> Recipe:
    """The recipe with the bytes of the model: other machines do not have the file."""
    path = Path(str(recipe.options["model"]))
    if recipe.model is not None or path.suffix not in _ONE_FILE:
        return recipe
    return replace(recipe, model=path.read_bytes())
