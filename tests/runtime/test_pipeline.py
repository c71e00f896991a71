"""The pipeline alone, with stand-in stages."""

from __future__ import annotations

import gc
import itertools
import random
import threading
import time

import pytest

from cast_sdk.errors import StreamError
from cast_sdk.runtime.pipeline import Pipeline, Stage


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("cast-")]


@pytest.fixture(autouse=True)
def no_orphans():
    yield
    gc.collect()
    assert threads() == []


def jitter(value):
    time.sleep(random.random() * 0.003)
    return value


def test_results_are_in_order_with_many_workers():
    stages = [Stage("a", jitter, workers=4), Stage("b", lambda v: v * 2, workers=3)]
    items = list(Pipeline(range(200), stages))
    assert [i.value for i in items] == [2 * i for i in range(200)]
    assert [i.index for i in items] == list(range(200))
    assert {"read", "a", "b", "latency"} == set(items[0].timing)
    assert all(i.dropped == 0 for i in items)


def test_stages_run_at_the_same_time():
    """Each stage waits until the other one works on another item: a sequential loop would never pass the barrier."""
    both = threading.Barrier(2, timeout=10)
    last = 19

    def meet_a(value):
        if value > 0:
            both.wait()
        return value

    def meet_b(value):
        if value < last:
            both.wait()
        return value

    assert [i.value for i in Pipeline(range(last + 1), [Stage("a", meet_a), Stage("b", meet_b)])] == list(range(20))


@pytest.mark.parametrize(
    ("count", "window", "sizes"), [(10, 12, [4, 4, 2]), (8, 12, [4, 4]), (5, 2, None), (1, 9, [1])]
)
def test_batches_are_filled_but_never_waited_for_in_vain(count, window, sizes):
    seen = []

    def network(values):
        seen.append(len(values))
        return [v + 1 for v in values]

    stages = [Stage("a", jitter, workers=2), Stage("net", network, batch=4), Stage("c", lambda v: v)]
    assert [i.value for i in Pipeline(range(count), stages, in_flight=window)] == list(range(1, count + 1))
    assert sizes is None or seen == sizes
    assert max(seen) <= min(4, window)


def test_a_failure_before_a_batch_stage_does_not_hold_it_up():
    def fail(value):
        if value == 2:
            raise ZeroDivisionError
        return value

    seen = []
    with pytest.raises(StreamError, match="frame 2"):
        for item in Pipeline(range(4), [Stage("a", fail), Stage("net", lambda values: values, batch=4)], in_flight=9):
            seen.append(item.value)
    assert seen == [0, 1]


def test_the_window_bounds_what_is_read_ahead():
    read = []
    source = (read.append(i) or i for i in itertools.count())
    with Pipeline(source, [Stage("a", lambda v: v)], in_flight=3) as pipeline:
        for expected in range(5):
            assert next(pipeline).value == expected
            time.sleep(0.02)
            # in flight, one pending and one in the reader's hand
            assert len(read) <= expected + 1 + 3 + 2


def test_latest_drops_stale_values_and_counts_them():
    release = threading.Event()

    def source():
        yield from range(100)
        release.set()

    def slow(value):
        release.wait(10)
        return value

    items = list(Pipeline(source(), [Stage("slow", slow)], latest=True))
    values = [i.value for i in items]
    assert values == sorted(values) and values[-1] == 99
    assert len(items) + items[-1].dropped == 100
    assert items[-1].index == 99


def test_max_latency_sheds_what_waited_too_long_but_never_the_newest():
    gate = threading.Event()

    def network(value):
        gate.wait(10)
        return value

    stages = [Stage("a", lambda v: v), Stage("network", network)]
    with Pipeline(range(6), stages, in_flight=6, max_latency=0.05) as pipeline:
        time.sleep(0.2)
        gate.set()
        items = list(pipeline)
    assert items[-1].value == 5
    assert len(items) < 6
    assert items[-1].dropped == 6 - len(items)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_in_a_stage_surfaces_in_its_place(workers):
    def fail(value):
        if value == 5:
            raise ZeroDivisionError("five")
        return value

    pipeline = Pipeline(itertools.count(), [Stage("a", jitter, workers), Stage("b", fail, workers)])
    seen = []
    with pytest.raises(StreamError, match="Stage 'b' failed on frame 5") as caught:
        seen.extend(i.value for i in pipeline)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(StopIteration):
        next(pipeline)


def test_values_before_a_failure_are_delivered():
    def source():
        yield from range(7)
        raise OSError("unplugged")

    pipeline = Pipeline(source(), [Stage("a", jitter, 2)])
    seen = []
    with pytest.raises(StreamError, match="source failed after 7 frames") as caught:
        for item in pipeline:
            seen.append(item.value)
    assert seen == list(range(7))
    assert isinstance(caught.value.__cause__, OSError)


def test_a_source_that_cannot_be_iterated():
    with pytest.raises(StreamError, match="TypeError"):
        next(Pipeline(3, [Stage("a", lambda v: v)]))  # type: ignore[arg-type]


def test_stopping_early_ends_threads_and_closes_the_source():
    closed = []

    def source():
        try:
            yield from itertools.count()
        finally:
            closed.append(threading.current_thread().name)

    pipeline = Pipeline(source(), [Stage("a", lambda v: v, 2)])
    assert next(pipeline).value == 0
    pipeline.close()
    pipeline.close()
    assert closed == ["cast-reader"]
    assert threads() == []


def test_losing_the_iterator_ends_the_threads():
    pipeline = Pipeline(itertools.count(), [Stage("a", lambda v: v)])
    next(pipeline)
    del pipeline
    gc.collect()
    assert threads() == []


def test_an_exception_in_the_consumer_ends_the_threads():
    def consume():
        for item in Pipeline(itertools.count(), [Stage("a", lambda v: v)]):
            if item.value == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert threads() == []


def test_a_waiting_source_is_told_to_stop():
    event = threading.Event()

    def source():
        yield 1
        event.wait(30)

    pipeline = Pipeline(source(), [Stage("a", lambda v: v)], stop=event.set)
    assert next(pipeline).value == 1
    pipeline.close()
    assert threads() == []


def test_the_watchdog_names_the_stalled_stage():
    release = threading.Event()
    pipeline = Pipeline(
        range(3), [Stage("a", lambda v: v), Stage("gpu", lambda v: release.wait(30))], stall_timeout=0.1
    )
    threading.Timer(0.6, release.set).start()
    with pytest.raises(StreamError, match="Stage 'gpu' has been working on frame 0"):
        next(pipeline)


def test_frames_are_not_kept_alive():
    """After delivery nothing in an idle pipeline refers to the value."""
    import weakref

    class Frame:
        pass

    references = []

    def source():
        for _ in range(3):
            frame = Frame()
            references.append(weakref.ref(frame))
            yield frame
            del frame

    with Pipeline(source(), [Stage("a", lambda v: v), Stage("b", lambda v: v)]) as pipeline:
        for _ in range(3):
            next(pipeline)
        time.sleep(0.1)
        gc.collect()
        assert [r() for r in references] == [None, None, None]


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least one stage"):
        Pipeline([], [])
    with pytest.raises(ValueError, match="first stage"):
        Pipeline([], [Stage("a", print, batch=2)])
    with pytest.raises(ValueError, match="in_flight"):
        Pipeline([], [Stage("a", print)], in_flight=0)
