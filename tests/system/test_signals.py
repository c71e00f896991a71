"""Ends that come from outside: nothing is lost, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from cast_sdk.system.signals import interruptible, uninterrupted

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def nothing_is_ignored():
    """As in a terminal: `nohup` and shells that run in the background leave signals ignored."""
    handlers = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_one_signal_interrupts_and_more_do_not_while_closing(number):
    before = signal.getsignal(number)
    closed = 0
    with pytest.raises(KeyboardInterrupt), interruptible() as interruption:
        try:
            signal.raise_signal(number)
        finally:
            with interruptible():  # a part of the outer block
                for other in NUMBERS:
                    signal.raise_signal(other)
                    closed += 1
    assert closed == 3 and interruption.number == number and interruption.exit_code == 128 + number
    assert signal.getsignal(number) is before


def test_a_signal_later_than_closing_takes_interrupts_again(monkeypatch):
    clock = iter([0.0, 5.0, 20.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    caught = []
    with interruptible():
        for _ in range(3):
            try:
                signal.raise_signal(signal.SIGINT)
                caught.append(False)
            except KeyboardInterrupt:
                caught.append(True)
    assert caught == [True, False, True]


def test_a_signal_waits_for_the_end_of_an_uninterrupted_block():
    steps = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        steps.append("finished")
    assert steps == ["finished"]


def test_signals_that_a_process_ignores_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
        with uninterrupted():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


WRITES = """
import sys, time
from cast_sdk.runtime.commands.common import clean_exit
from cast_sdk.system.files import atomic_write
with clean_exit(), atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", NUMBERS)
def test_a_command_that_is_told_to_end_leaves_no_temporary_file(tmp_path, number):
    command = [sys.executable, "-c", WRITES, str(tmp_path / "a.txt")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + number, "interrupted\n")
    assert not list(tmp_path.iterdir())
