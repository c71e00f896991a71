"""Processes that work through tasks: order, bounds, deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from endings import Doubling

from cast_sdk.errors import EngineError, InputError
from cast_sdk.runtime.bulk.pool import Pool, Task

SUPPORT = {"PYTHONPATH": str(Path(__file__).parents[2] / "support")}


def tasks(count: int, size: int = 3):
    return (Task(number, list(range(number * size, (number + 1) * size))) for number in range(count))


def test_results_come_in_order_and_tasks_are_taken_as_needed(tmp_path):
    taken = []

    def counted():
        for task in tasks(40):
            taken.append(task.number)
            yield task

    with Pool(Doubling(tmp_path), 2) as pool:
        results = pool.run(counted())
        first, result = next(results)
        assert first.number == 0 and result == [0, 2, 4]
        assert len(taken) <= 10, "tasks that nobody waits for were taken"
        rest = [result for _, result in results]
        again = [result for _, result in pool.run(tasks(2))]
    assert rest == [[6 * n, 6 * n + 2, 6 * n + 4] for n in range(1, 40)]
    assert again == [[0, 2, 4], [6, 8, 10]]


def test_an_item_that_ends_its_process_is_passed_over_after_two_tries(tmp_path):
    seen = []
    items = [Task(0, [1, 2]), Task(1, [3, -1, 4]), Task(2, [5])]
    with Pool(Doubling(tmp_path, once=(2,)), 2, ended=lambda *what: seen.append(what)) as pool:
        results = [result for _, result in pool.run(iter(items))]
    assert results[0] == [2, 4] and results[2] == [10]  # 2 ended its process once only
    assert (
        results[1][0] == 6
        and results[1][2] == 8
        and "2 times. Found: the process was ended by SIGKILL" in results[1][1]
    )
    assert sorted((task.number, position) for task, position, _ in seen) == [(0, 1), (1, 1), (1, 1)]


def test_what_ended_a_process_in_an_earlier_run_counts(tmp_path):
    task = Task(0, [-1])
    task.fail(0, "before")
    seen = []
    with Pool(Doubling(tmp_path), 1, ended=lambda *what: seen.append(what)) as pool:
        assert len(list(pool.run([task]))) == 1
    assert len(seen) == 1


def test_an_error_of_the_start_is_raised(tmp_path):
    with Pool(Doubling(tmp_path, broken=True), 1) as pool, pytest.raises(InputError, match="model is not there"):
        list(pool.run(tasks(1)))


def test_processes_that_always_end_at_once_end_the_work(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # no child can start
    with Pool(Doubling(tmp_path), 1) as pool, pytest.raises(EngineError, match="before they touch an image"):
        list(pool.run(tasks(1)))


def test_a_process_that_is_killed_before_it_has_read_its_work_holds_nobody_up(tmp_path):
    program = (
        "from endings import Lost; from cast_sdk.errors import EngineError\n"
        "from cast_sdk.runtime.bulk.pool import Pool, Task\n"
        "try: list(Pool(Lost(), 1).run([Task(0, [1])]))\nexcept EngineError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env={**os.environ, **SUPPORT}
    )
    assert "before they touch an image" in done.stdout and "SIGKILL" in done.stdout, done.stderr


def test_processes_end_with_their_parent(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from endings import Doubling\n"
        "from cast_sdk.runtime.bulk.pool import Pool, Task\n"
        "pool = Pool(Doubling(Path(sys.argv[1])), 2)\n"
        "list(pool.run(Task(n, [n]) for n in range(4)))\n"
        "print(*pool.pids, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **SUPPORT},
    )
    assert parent.stdout is not None
    children = [int(pid) for pid in parent.stdout.readline().split()]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 60
    while any(_alive(pid) for pid in children):
        assert time.monotonic() < deadline, "a process outlived its parent"
        time.sleep(0.05)
    assert len(children) == 2


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
