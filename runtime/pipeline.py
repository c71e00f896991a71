"""A bounded pipeline over callables: one thread reads, every stage has its threads, the caller consumes in order.

It knows nothing about models. Bounding is by a window: at most `in_flight` items are between the source and the
consumer, so by Little's law the latency is `in_flight` times the period of the slowest stage and memory is bounded too.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cast_sdk.errors import CastError, InputError, StreamError

_log = logging.getLogger(__name__)
LEFT_OUT = object()  # what a stage (without batch) returns for a value that gives no result
_TICK = 0.25  # seconds between two looks of the waiting consumer at the watchdog


@dataclass(frozen=True)
class Stage:
    """One step: `run` takes the previous stage's value and returns its own, in `workers` threads.

    With `batch` above 1 it takes and returns lists of up to so many. A stage waits for a full batch while more values
    are on their way; where only the latest counts it takes what is there. An `ordered` stage takes the values in the
    order of the source, whoever of the stage before is done first: it is the second one and has one worker.
    """

    name: str
    run: Callable[[Any], Any]
    workers: int = 1
    batch: int = 1
    ordered: bool = False


@dataclass
class Item:
    """One value on its way and, once delivered, one result."""

    index: int  # position in the source, shed values included
    value: Any
    captured: float  # time.monotonic() when the source gave it
    timing: dict[str, float] = field(default_factory=dict)  # milliseconds: "read", every stage, "latency"
    dropped: int = 0  # values shed since the start of the stream, up to this one
    sequence: int = -1  # position among the values that entered the stages
    failed: tuple[str, Exception] | None = None


class _Core:
    """The state that threads share. It holds no reference to the Pipeline, so that losing the Pipeline ends them."""

    def __init__(
        self,
        source: Iterable[Any],
        stages: Sequence[Stage],
        in_flight: int,
        latest: bool,
        max_latency: float | None,
        stop: Callable[[], None] | None,
    ) -> None:
        self.source, self.stages, self.stop = source, tuple(stages), stop
        self.window, self.latest, self.max_latency = in_flight, latest, max_latency
        # One lock, and a condition per kind of waiter, so that a change wakes only those whom it concerns.
        self.lock = threading.Lock()
        self.room, self.done = threading.Condition(self.lock), threading.Condition(self.lock)
        self.work_for = [threading.Condition(self.lock) for _ in self.stages]
        self.pending: Item | None = None  # read, not yet in a stage
        self.waiting: list[list[tuple[int, Item]]] = [[] for _ in self.stages[1:]]  # heaps by sequence
        self.arrived = [0 for _ in self.stages[1:]]  # values that reached each heap, or never will
        self.turn = 0  # sequence of the next value for an ordered stage
        self.passed: set[int] = set()  # sequences from there on that will not reach it
        self.results: dict[int, Item | None] = {}  # None: shed on the way
        self.flying = self.entered = self.delivered = self.dropped = 0
        self.source_error: Exception | None = None
        self.source_ended = self.closed = False
        self.busy: dict[int, tuple[str, int, float]] = {}  # thread id: stage, index, since
        self.threads = [threading.Thread(target=self.read, name="cast-reader", daemon=True)]
        for number, stage in enumerate(self.stages):
            for worker in range(stage.workers):
                name = f"cast-{stage.name}-{worker}"
                self.threads.append(threading.Thread(target=self.work, args=(number,), name=name, daemon=True))
        self.started = False
        self.process = os.getpid()

    # threads ---------------------------------------------------------------------------------------------------------

    def read(self) -> None:
        iterator: Iterator[Any] | None = None
        error: Exception | None = None
        try:
            iterator = iter(self.source)
            index = 0
            while not self.closed:
                started = time.monotonic()
                try:
                    value = next(iterator)
                except StopIteration:
                    break
                now = time.monotonic()
                self.offer(Item(index, value, now, {"read": (now - started) * 1e3}))
                index += 1
        except Exception as caught:
            error = caught
        try:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
        except Exception as caught:
            error = error or caught
        with self.lock:
            self.source_error, self.source_ended = error, True
            self.wake()

    def offer(self, item: Item) -> None:
        with self.lock:
            if self.latest:
                self.dropped += self.pending is not None
            else:
                self.room.wait_for(lambda: self.closed or self.pending is None)
            self.pending = item
            self.work_for[0].notify()

    def work(self, number: int) -> None:
        stage, me = self.stages[number], threading.get_ident()
        while items := self.take(number):
            started = time.monotonic()
            self.busy[me] = (stage.name, items[0].index, started)
            try:
                if stage.batch == 1:
                    items[0].value = stage.run(items[0].value)
                else:
                    for item, value in zip(items, stage.run([item.value for item in items]), strict=True):
                        item.value = value
            except Exception as error:
                for item in items:
                    item.failed, item.value = (stage.name, error), None
            finally:
                del self.busy[me]
            elapsed = (time.monotonic() - started) * 1e3 / len(items)
            with self.lock:
                for item in items:
                    item.timing[stage.name] = elapsed
                    self.hand_on(number, item)
            del items, item  # an idle worker must not keep a frame alive

    def take(self, number: int) -> list[Item]:
        """The next values for a stage; none when the pipeline is closed."""
        ready = self.work_for[number]
        with self.lock:
            if number == 0:
                ready.wait_for(lambda: self.closed or (self.pending is not None and self.flying < self.window))
                item, self.pending = self.pending, None
                if self.closed or item is None:
                    return []
                item.sequence, item.dropped = self.entered, self.dropped
                self.entered += 1
                self.flying += 1
                self.room.notify()
                return [item]
            heap, batch = self.waiting[number - 1], self.stages[number].batch
            if self.stages[number].ordered:
                ready.wait_for(lambda: self.closed or (heap and heap[0][0] == self.turn))
            else:
                ready.wait_for(lambda: self.closed or len(heap) >= batch or (heap and self.enough(number)))
            if self.closed:
                return []
            while len(heap) > 1 and self.stale(heap[0][1]) and self.follows(number):
                sequence = heapq.heappop(heap)[0]
                self.results[sequence] = None
                self.pass_turn(sequence)
                self.gone(number)
                self.shed()
            if self.stages[number].ordered:
                self.pass_turn(self.turn)
            return [heapq.heappop(heap)[1] for _ in range(min(batch, len(heap)))]

    # under the lock --------------------------------------------------------------------------------------------------

    def hand_on(self, number: int, item: Item) -> None:
        """From stage `number` to the next one or to the consumer."""
        if number == 0 and (item.value is LEFT_OUT or item.failed is not None):
            self.pass_turn(item.sequence)
        if item.value is LEFT_OUT:
            self.gone(number)
            self.results[item.sequence] = None
            self.leave()
            self.done.notify()
        elif item.failed is None and number + 1 < len(self.stages):
            heapq.heappush(self.waiting[number], (item.sequence, item))
            self.arrived[number] += 1
            self.work_for[number + 1].notify()
        else:
            self.gone(number)
            self.results[item.sequence] = item
            self.done.notify()

    def gone(self, number: int) -> None:
        """A value at stage `number` will not reach the later ones."""
        for later in range(number, len(self.arrived)):
            self.arrived[later] += 1
            self.work_for[later + 1].notify()  # a stage may wait for a batch that this one was to fill

    def enough(self, number: int) -> bool:
        """Whether a stage should not wait for a fuller batch: nothing more can come before this one is done."""
        if self.latest or self.stages[number].batch == 1:
            return True
        more = self.entered > self.arrived[number - 1] or (self.flying < self.window and not self.exhausted())
        return not more

    def pass_turn(self, sequence: int) -> None:
        """An ordered stage need not wait for this value any more."""
        if len(self.stages) > 1 and self.stages[1].ordered:
            self.passed.add(sequence)
            while self.turn in self.passed:
                self.passed.discard(self.turn)
                self.turn += 1

    def follows(self, number: int) -> bool:
        """Whether a stage can go on at once when the first value that waits for it is left out."""
        if not self.stages[number].ordered:
            return True
        second = heapq.nsmallest(2, self.waiting[number - 1])[1][0]
        return all(sequence in self.passed for sequence in range(self.turn + 1, second))

    def exhausted(self) -> bool:
        return self.source_ended and self.pending is None

    def stale(self, item: Item) -> bool:
        return self.max_latency is not None and time.monotonic() - item.captured > self.max_latency

    def shed(self) -> None:
        self.dropped += 1
        self.leave()
        self.done.notify()

    def leave(self) -> None:
        """One value less in flight."""
        self.flying -= 1
        self.work_for[0].notify()

    def wake(self) -> None:
        """Something changed for everybody."""
        for condition in (self.room, self.done, *self.work_for):
            condition.notify_all()

    def ready(self) -> Item | None:
        """The next result in order, skipping what was shed and what is stale while a fresher one is ready."""
        while self.delivered in self.results:
            item = self.results[self.delivered]
            if item is not None and item.failed is None and self.stale(item) and self.fresher():
                self.shed()
                item = None
            del self.results[self.delivered]
            self.delivered += 1
            if item is not None:
                self.leave()
                item.dropped = self.dropped if self.latest or self.max_latency is not None else 0
                return item
        return None

    def fresher(self) -> bool:
        return any(s > self.delivered and i is not None and i.failed is None for s, i in self.results.items())

    def drained(self) -> bool:
        return self.exhausted() and self.delivered == self.entered

    # called by the consumer ------------------------------------------------------------------------------------------

    def close(self, timeout: float) -> None:
        if os.getpid() != self.process:  # a forked child has none of the threads, and one of them may hold the lock
            self.closed = True
            return
        with self.lock:
            self.closed, self.pending = True, None
            self.results.clear()
            for heap in self.waiting:
                heap.clear()
            self.wake()
        if self.stop is not None:
            self.stop()
        deadline = time.monotonic() + timeout
        for thread in self.threads:
            if self.started and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    _log.warning("%s is still inside a call %.1f s after the stream was closed", thread.name, timeout)


class Pipeline(Iterator[Item]):
    """Iterate over a source through stages that run at the same time; results come in the source's order.

    Args:
        source: any iterable. It is iterated in one thread of its own, and a generator is closed there.
        stages: at least one.
        in_flight: most items between the source and the consumer. Default: one per worker and two more; with
            `latest` one per worker, because every further one only adds latency.
        latest: keep only the newest value while the stages are busy and drop the others (for live sources).
        max_latency: seconds; a value that is older is shed where a fresher one already waits behind it. A pipeline
            that is slower than this still delivers: the newest value is never shed.
        stall_timeout: seconds after which a stage that does not return is reported as a StreamError; None: never.
        stop: called from the closing thread so that a source that waits (for a camera, say) returns.

    Iterating raises StreamError, with the original exception as its cause, in the place of the value that failed;
    values before it are delivered first. A CastError of a source that gives no value at all is raised as it is. Leaving
    by an exception (Ctrl-C too), `close()`, the end of a `with` block or losing the last reference ends the threads.
    """

    def __init__(
        self,
        source: Iterable[Any],
        stages: Sequence[Stage],
        *,
        in_flight: int | None = None,
        latest: bool = False,
        max_latency: float | None = None,
        stall_timeout: float | None = 60.0,
        stop: Callable[[], None] | None = None,
    ) -> None:
        if not stages or any(stage.workers < 1 or stage.batch < 1 for stage in stages) or stages[0].batch > 1:
            raise ValueError(
                "a pipeline needs at least one stage, workers and batches from 1, a first stage without batch"
            )
        if any(s.ordered and (n != 1 or s.workers > 1 or s.batch > 1) for n, s in enumerate(stages)):
            raise ValueError("an ordered stage is the second one, with one worker and without batch")
        workers = sum(stage.workers for stage in stages)
        window = in_flight if in_flight is not None else workers + (0 if latest else 2)
        if window < 1:
            raise ValueError("in_flight must be at least 1")
        self.stall_timeout = stall_timeout
        self._core = _Core(source, stages, window, latest, max_latency, stop)
        self._finalizer = weakref.finalize(self, self._core.close, 5.0)
        self._core.started = True
        for thread in self._core.threads:
            thread.start()

    @property
    def dropped(self) -> int:
        """Values shed so far."""
        return self._core.dropped

    @property
    def closed(self) -> bool:
        return self._core.closed

    def __iter__(self) -> Pipeline:
        return self

    def __next__(self) -> Item:
        try:
            return self._next()
        except BaseException:
            self.close()
            raise

    def _next(self) -> Item:
        core = self._core
        if os.getpid() != core.process:
            raise InputError(
                "This stream was begun before the fork of this process and cannot go on in it.",
                remedy="begin it in the child, or start processes with multiprocessing.get_context('spawn')",
            )
        with core.lock:
            while True:
                if core.closed:
                    raise StopIteration
                item = core.ready()
                if item is not None:
                    break
                if core.drained():
                    if core.source_error is None:
                        raise StopIteration
                    if core.entered == 0 and isinstance(core.source_error, CastError):
                        raise core.source_error  # it never began, and says why itself
                    raise StreamError(
                        f"The source failed after {core.entered + core.dropped} frames.",
                        found=_summary(core.source_error),
                    ) from core.source_error
                self._watch()
                core.done.wait(_TICK)
        if item.failed is not None:
            stage, error = item.failed
            raise StreamError(f"Stage {stage!r} failed on frame {item.index}.", found=_summary(error)) from error
        item.timing["latency"] = (time.monotonic() - item.captured) * 1e3
        return item

    def _watch(self) -> None:
        if self.stall_timeout is None:
            return
        for stage, index, since in list(self._core.busy.values()):
            if time.monotonic() - since > self.stall_timeout:
                raise StreamError(
                    f"Stage {stage!r} has been working on frame {index} for more than {self.stall_timeout:g} s.",
                    found=f"{time.monotonic() - since:.1f} s so far",
                    remedy="check the device (driver log, temperature, memory); stall_timeout sets the limit",
                )

    def close(self, timeout: float = 5.0) -> None:
        """End all threads. Safe to call twice and from any thread; waits at most `timeout` seconds."""
        if self._finalizer.detach() is not None:
            self._core.close(timeout)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
