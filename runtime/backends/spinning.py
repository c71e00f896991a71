"""How the idle threads of ONNX Runtime wait for the next operator of a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ALLOW, _DURATION = "session.intra_op.allow_spinning", "session.intra_op.spin_duration_us"
_BETWEEN_OPERATORS = 50  # microseconds: the gap between two operators that share their work is shorter, nearly always
_FIRST_WITH_DURATION = (1, 26)


def spinning_entries(version: str, spinning: bool | None, yields: bool) -> dict[str, str]:
    """Configuration of a session.

    Without spinning, each of the few hundred operators of a run wakes its threads through the system, which takes as
    long as a small operator. Spinning to the end of the run instead costs a machine with other work more than it gains.

    Args:
        version: of ONNX Runtime. Before 1.26 it ignores a duration without a word, and would spin to the end of the run.
        spinning: True: to the end of the run; False: never; None: for a moment, where the threads yield.
        yields: whether the session's threads give way to other work, see `yielding_threads`.
    """
    if spinning is None and yields and _release(version) >= _FIRST_WITH_DURATION:
        return {_ALLOW: "1", _DURATION: str(_BETWEEN_OPERATORS)}
    return {_ALLOW: "1" if spinning else "0"}


def _release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version; (0, 0) for one that does not begin with them."""
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)


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
