"""How the idle threads of ONNX Runtime wait for the next operator of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Microseconds that an idle thread spins before it sleeps. A run has a few hundred operators that share their work, and
# waking a thread through the system takes as long as a small one of them; the time between two is mostly shorter than
# this. Longer gains little more for one frame at a time, and takes processor time from the frames of a stream.
BRIEFLY = 25
_FIRST_WITH_DURATIONS = (1, 26)


def knows_durations(version: str) -> bool:
    """Whether this ONNX Runtime can spin for a given time; older ones ignore it in silence and spin on."""
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) >= _FIRST_WITH_DURATIONS


@contextmanager
def yielding_threads(wanted: bool = True) -> Iterator[bool]:
    """Threads that this one starts inside are of the class for batch work, where Linux allows it.

    Such a thread has its fair share of the processor, and never interrupts another one when it wakes. So threads of a
    network that wait for a core do not take it from the thread that has the rest of the work, or from other programs.

    Args:
        wanted: False: nothing is changed.

    Yields:
        bool: whether the threads will yield.
    """
    if not wanted or sys.platform != "linux":
        yield False
        return
    own = os.sched_getscheduler(0)  # of this thread; those that it starts inherit it
    if own in (os.SCHED_BATCH, os.SCHED_IDLE):
        yield True
        return
    if own != os.SCHED_OTHER or not _schedule(os.SCHED_BATCH):
        yield False
        return
    try:
        yield True
    finally:
        _schedule(own)


def _schedule(policy: int) -> bool:
    """Put this thread into a class without priorities; False where a sandbox forbids it."""
    try:
        os.sched_setscheduler(0, policy, os.sched_param(0))
    except OSError:
        return False
    return True
