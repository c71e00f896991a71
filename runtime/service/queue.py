"""A bounded queue of photographs before a few threads that run the model; what waits together is run together."""

from __future__ import annotations

import asyncio
import collections
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cast_sdk.errors import CastError, EngineError
from cast_sdk.runtime.preprocess import Prepared
from cast_sdk.runtime.result import Segmentation
from cast_sdk.runtime.runtime import Runtime
from cast_sdk.runtime.service.logs import LOG
from cast_sdk.runtime.service.photos import read_photo


class Full(Exception):
    """The queue takes no more photographs now. `retry_after`: seconds after which it may."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass
class _Job:
    data: bytes
    answer: Callable[[Segmentation], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    prepared: Prepared | None = field(default=None)

    def settle(self, value: Any, error: BaseException | None) -> None:
        def deliver() -> None:
            if not self.future.done():  # its client may have gone
                if error is None:
                    self.future.set_result(value)
                else:
                    self.future.set_exception(error)

        self.loop.call_soon_threadsafe(deliver)


class Queue:
    """Photographs on their way through the model.

    A place is reserved before a photograph is read, so that one that cannot be served costs nothing.

    Args:
        runtime: the model.
        threads: that decode, run the model and write the answer.
        places: photographs that wait or are worked on, at most.
        batch: photographs that go through the network together, at most, where so many wait.
        observe: called with the size of each batch.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        threads: int,
        places: int,
        batch: int = 1,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self.runtime, self.places, self.batch = runtime, places, batch
        self.taken = 0  # places, by the event loop alone
        self._observe = observe
        self._jobs: collections.deque[_Job] = collections.deque()
        self._news = threading.Condition()
        self._closed = False
        self._seconds = 0.05  # that a photograph takes, of one of the threads; a running mean
        self._threads = [
            threading.Thread(target=self._work, name=f"cast-serve-{n}", daemon=True) for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def reserve(self, count: int = 1) -> None:
        """Take places; each is given back with `release`.

        Raises:
            Full: there are not so many.
        """
        if self.taken + count > self.places:
            raise Full(max(1, math.ceil(self.taken * self._seconds / len(self._threads))))
        self.taken += count

    def release(self, count: int = 1) -> None:
        """Give places back."""
        self.taken -= count

    async def run(self, data: bytes, answer: Callable[[Segmentation], Any]) -> Any:
        """What `answer` makes of the result, in one of the threads.

        Raises:
            CastError: see `read_photo` and `Runtime`; an EngineError for whatever else went wrong.
        """
        loop = asyncio.get_running_loop()
        job = _Job(data, answer, loop, loop.create_future())
        with self._news:
            self._jobs.append(job)
            self._news.notify()
        return await job.future

    def close(self) -> None:
        """End the threads once nothing waits."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        for thread in self._threads:
            thread.join()

    def _take(self) -> list[_Job]:
        with self._news:
            while not self._jobs and not self._closed:
                self._news.wait()
            return [self._jobs.popleft() for _ in range(min(self.batch, len(self._jobs)))]

    def _work(self) -> None:
        while jobs := self._take():
            start = time.monotonic()
            jobs = [job for job in jobs if not job.future.cancelled() and self._step(self._prepare, job)]
            if jobs:
                self._observe(len(jobs))
                self._infer(jobs)
                self._seconds += 0.1 * ((time.monotonic() - start) / len(jobs) - self._seconds)

    def _prepare(self, job: _Job) -> None:
        job.prepared = self.runtime.add_superpixels(self.runtime.prepare(read_photo(job.data)))
        job.data = b""

    def _infer(self, jobs: Sequence[_Job]) -> None:
        try:
            rows = self.runtime.infer([job.prepared for job in jobs if job.prepared is not None])
        except Exception as error:
            failure = _answerable(error)
            for job in jobs:
                job.settle(None, failure)
            return
        for job, row in zip(jobs, rows, strict=True):

            def finish(job: _Job, row: dict[str, Any] = row) -> None:
                assert job.prepared is not None
                job.settle(job.answer(self.runtime.finish(job.prepared, row)), None)

            self._step(finish, job)

    def _step(self, step: Callable[[_Job], None], job: _Job) -> bool:
        """Whether a step of one photograph succeeded; if not, that photograph alone is answered with the error."""
        try:
            step(job)
        except Exception as error:  # a thread must not end of one photograph
            job.settle(None, _answerable(error))
            return False
        return True


def _answerable(error: Exception) -> CastError:
    """The error of a photograph, as it is answered; what nobody foresaw goes whole into the log, and only there."""
    if isinstance(error, CastError):
        return error
    LOG.error("a photograph failed", exc_info=error)
    failure = EngineError(
        "The model failed on this photograph.", found=type(error).__name__, remedy="see the log of the service"
    )
    failure.__cause__ = error
    return failure
