"""Processes that work through tasks. What ends a process is found, tried once more and then passed over.

A task is a number and a list of items. Each process owns one task at a time and has the next one waiting in its pipe.
Before it touches an item it writes the item's position into memory that the parent can read, so that the parent of a
process that died knows which item did it.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

from cast_sdk.errors import CastError, EngineError

TRIES = 2  # times that an item may end its process
_STARTS = 5  # processes in a row that may end before they finish anything and before they touch an item
_KILLED = 20  # the same, where they were killed: somebody else did that, or the system, for want of memory
_AHEAD = 2  # tasks that a process holds: the one it works on and the next
_IDLE = -1

Item = TypeVar("Item")


@dataclass
class Task(Generic[Item]):
    """Part of the work.

    Attributes:
        number: its place in the order of results, from 0 without gaps.
        items: what it holds.
        tries: how often an item has ended its process, by position.
        failed: messages of items that are passed over, by position.
    """

    number: int
    items: Sequence[Item]
    tries: dict[int, int] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def fail(self, position: int, reason: str) -> None:
        """An item has ended its process: after so many tries it is passed over."""
        self.tries[position] = self.tries.get(position, 0) + 1
        if self.tries[position] >= TRIES:
            self.failed[position] = f"The image ended the process that read it, {TRIES} times. Found: {reason}"


class Work(Protocol):
    """What a process does: made once in it, then called for each task."""

    def __call__(self, task: Task[Any], started: Callable[[int], None]) -> Any:
        """The result of a task. `started(position)` is called before an item is touched."""


class Pool:
    """Processes that work through tasks, in order.

    Args:
        make: called once in each process; returns its `Work`. Must be importable and picklable, as must all tasks.
        workers: how many processes.
        ended: called when an item has ended a process, with its task, its position and what was seen.

    Raises:
        CastError: what `make` raised.
        EngineError: the processes end before they work.
    """

    def __init__(
        self,
        make: Callable[[], Work],
        workers: int,
        *,
        ended: Callable[[Task[Any], int, str], None] = lambda task, position, reason: None,
    ) -> None:
        self._make, self._ended = make, ended
        self._context = multiprocessing.get_context("spawn")
        self._workers = [_Process(self._context, make) for _ in range(workers)]
        self._failed_starts = 0

    def run(self, tasks: Iterable[Task[Item]]) -> Iterator[tuple[Task[Item], Any]]:
        """Each task with its result, in order. Tasks are taken from the iterable as they can be worked on."""
        waiting: collections.deque[Task[Item]] = collections.deque()  # given back by a process that died
        source = iter(tasks)
        done: dict[int, tuple[Task[Item], Any]] = {}
        following: int | None = None
        limit = len(self._workers) * (_AHEAD + 2)  # results and tasks that are held: memory is bounded
        exhausted = False
        while True:
            held = len(done) + len(waiting) + sum(len(worker.tasks) for worker in self._workers)
            for worker in sorted(self._workers, key=lambda one: len(one.tasks)):
                while len(worker.tasks) < _AHEAD:
                    if waiting:
                        task = waiting.popleft()
                    elif exhausted or held >= limit:
                        break
                    else:
                        fresh = next(source, None)
                        if fresh is None:
                            exhausted = True
                            break
                        task, held = fresh, held + 1
                        following = task.number if following is None else following
                    worker.give(task)
            if not any(worker.tasks for worker in self._workers):
                return
            for worker in _ready(self._workers):
                outcome = worker.take()
                if outcome is None:
                    waiting.extendleft(reversed(self._bury(worker)))
                    continue
                self._failed_starts = 0
                task, result = outcome
                done[task.number] = task, result
            while following in done:
                yield done.pop(following)
                following += 1

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.end()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids, for measurements."""
        return [worker.process.pid or 0 for worker in self._workers]

    def _bury(self, worker: _Process) -> list[Task[Any]]:
        """Replace a process that died; what is to be done again, with what it died of marked."""
        worker.process.join(5)
        reason = _how_it_ended(worker.process.exitcode)
        tasks, position = list(worker.tasks), worker.position
        worker.end()
        if position == _IDLE or not tasks:
            self._failed_starts += 1
            if self._failed_starts >= (_KILLED if worker.process.exitcode == -signal.SIGKILL else _STARTS):
                raise EngineError(
                    "The processes end before they touch an image.",
                    found=reason,
                    remedy="check the free memory, or use fewer of them: --workers 1",
                )
        else:
            tasks[0].fail(position, reason)
            self._ended(tasks[0], position, reason)
        self._workers[self._workers.index(worker)] = _Process(self._context, self._make)
        return tasks


class _Process:
    """One process as its parent sees it."""

    def __init__(self, context: Any, make: Callable[[], Work]) -> None:
        self._position = context.RawValue("q", _IDLE)
        self._pipe, theirs = context.Pipe()
        self.tasks: collections.deque[Task[Any]] = collections.deque()
        # A child's arguments go through a pipe whose other end the parent holds open as well: where they fill it, as a
        # model does, a child that is killed before it has read them would leave the parent waiting for ever.
        self.process = context.Process(target=_serve, args=(theirs, self._position), daemon=True)
        with _importable():
            self.process.start()
        theirs.close()
        self._send(make)

    @property
    def position(self) -> int:
        """Position of the item that is being worked on; -1 between two tasks."""
        return int(self._position.value)

    @property
    def pipe(self) -> Connection:
        return self._pipe

    def give(self, task: Task[Any]) -> None:
        self.tasks.append(task)
        self._send(task)

    def take(self) -> tuple[Task[Any], Any] | None:
        """The oldest task with its result; None when the process has died."""
        try:
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            return None
        if kind == "error":
            raise value
        return self.tasks.popleft(), value

    def end(self) -> None:
        self._pipe.close()
        self.process.kill()
        self.process.join()

    def _send(self, value: object) -> None:
        with contextlib.suppress(OSError):  # it has died: `take` will tell
            self._pipe.send(value)


def _ready(workers: list[_Process]) -> list[_Process]:
    """Processes that have something to say, or have died; waits for one."""
    by_pipe = {worker.pipe: worker for worker in workers}
    return [by_pipe[pipe] for pipe in wait(list(by_pipe)) if isinstance(pipe, Connection)]


def _serve(pipe: Connection, position: Any) -> None:
    """The life of a process: until its parent closes the pipe, or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    _low_priority_for_memory()

    def started(item: int) -> None:
        position.value = item

    try:
        work = pipe.recv()()
        while True:
            task = pipe.recv()
            result = work(task, started)
            position.value = _IDLE
            pipe.send(("result", result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except CastError as error:
        pipe.send(("error", error))
    except Exception as error:
        import traceback

        pipe.send(("error", EngineError("A process failed.", found=f"{error!r}\n{traceback.format_exc()}")))


def _low_priority_for_memory() -> None:
    """Where memory runs out, the system ends this process and not the parent that can go on."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("500")


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    """Start a process without running the parent's program again: it needs the package only."""
    import sys

    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if getattr(main, name, None) is not None}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in signal.Signals.__members__.values() else f"signal {-code}"
        return f"the process was ended by {name}"
    return f"the process ended with code {code}"
