"""Bad inputs at every door, and proof that the harness sees what it looks for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import hostile_harness
import pytest
from hostile_harness import Case, Refused, attempt, sample

from cast_sdk.errors import InputError

HARNESS = Path(__file__).parent / "hostile_harness.py"


def tried(tmp_path: Path, *arguments: str, timeout: float) -> dict[str, int]:
    """What the harness counted, in a process of its own: a crash of it is a finding too."""
    journal = tmp_path / "journal"
    done = subprocess.run(
        [sys.executable, str(HARNESS), "--journal", str(journal), *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    where = journal.read_text() if journal.exists() else "the start"
    assert done.returncode in (0, 1), f"the process ended with {done.returncode} at: {where}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, done.stderr[-20_000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_sample_of_every_door_is_refused_or_answered_well(tmp_path):
    counts = tried(tmp_path, "--sample", "600", timeout=1800)
    assert counts["cases"] >= 5000 and counts["tried"] == 600 and counts["refused"] > 300
    assert counts["faults"] == 0 and counts["right afterwards"]


@pytest.mark.hostile
def test_all_of_them(tmp_path):
    counts = tried(tmp_path, timeout=7200)
    assert counts["tried"] == counts["cases"] and counts["faults"] == 0


def _leave_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(3,), name="left behind").start()


def _change(name: str) -> None:
    Path(name).write_text("other")
    raise InputError("refused")


def _leave(name: str) -> None:
    Path(name).touch()
    raise InputError("refused")


def _wait() -> None:
    time.sleep(30)


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("act", "refused", "words"),
    [
        (lambda: _raise(ZeroDivisionError("planted")), False, "ZeroDivisionError: planted"),
        (lambda: _raise(SystemExit(3)), False, "SystemExit: 3"),
        (lambda: _raise(InputError("")), False, "an empty message"),
        (lambda: None, True, "no result can be made"),
        (lambda: _leave("half.png"), False, "left files: half.png"),
        (lambda: Path(".a.png.x.tmp").touch(), False, "left files: .a.png.x.tmp"),
        (lambda: _change("mine.txt"), False, "changed files of the user: mine.txt"),
        (lambda: Path("mine.txt").unlink(), False, "changed files of the user: mine.txt"),
        (_leave_a_thread, False, "threads stay: left behind"),
        (_wait, False, "no end within"),
    ],
)
def test_planted_faults_are_seen(tmp_path, monkeypatch, act, refused, words):
    monkeypatch.setattr(hostile_harness, "HANG_SECONDS", 0.5)
    monkeypatch.setattr(hostile_harness, "THREAD_SECONDS", 0.5)
    (tmp_path / "mine.txt").write_text("mine")
    _, fault = attempt(Case("door", "kind", act, refused), tmp_path)
    assert words in fault


@pytest.mark.parametrize("act", [lambda: 3, lambda: _raise(InputError("no")), lambda: _raise(Refused("no"))])
def test_results_and_refusals_are_no_faults(tmp_path, act):
    (tmp_path / "mine.txt").write_text("mine")
    assert attempt(Case("door", "kind", act), tmp_path)[1] == ""


def test_a_sample_holds_every_door_and_is_the_same_for_a_seed():
    cases = [Case(f"door {n % 7}", f"kind {n}", lambda: None) for n in range(500)]
    chosen = sample(cases, 20, 3)
    assert len(chosen) == 20 and {case.door for case in chosen} == {case.door for case in cases}
    assert chosen == sample(cases, 20, 3) != sample(cases, 20, 4)
