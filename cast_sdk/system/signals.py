"""Ends that come from outside: Ctrl-C, a service manager's SIGTERM, a terminal that is closed."""

from __future__ import annotations

import atexit
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# How long what was interrupted may take to put its files in order before another signal interrupts that too.
CLOSING_SECONDS = 10.0
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interruption:
    """Whether and by which signal the process was told to end."""

    number: int | None = None

    @property
    def exit_code(self) -> int:
        """As a shell states it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.number or signal.SIGINT)


_active: Interruption | None = None


@contextmanager
def interruptible(*, to_the_end: bool = False) -> Iterator[Interruption]:
    """In the main thread, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in this block, once.

    More of them within `CLOSING_SECONDS` change nothing: temporary files are removed and recordings finished
    meanwhile. Signals that the process ignores (nohup, background jobs) stay ignored. A block inside of another one is
    part of it.

    Args:
        to_the_end: of the process: once interrupted, it is not disturbed while it exits either.
    """
    global _active
    if _active is not None or threading.current_thread() is not threading.main_thread():
        yield _active or Interruption()
        return
    _active = interruption = Interruption()
    last = -CLOSING_SECONDS

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= CLOSING_SECONDS:
            last, interruption.number = now, number
            raise KeyboardInterrupt

    before = _handle(interrupt)
    try:
        yield interruption
    finally:
        _active = None
        if interruption.number is None or not to_the_end:
            _restore(before)
        else:
            # The interpreter puts the default back while it ends, unless a signal is ignored.
            atexit.register(_restore, dict.fromkeys(before, signal.SIG_IGN))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals that come while this block runs in the main thread take effect when it has ended."""
    waiting: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if number not in waiting:
            waiting.append(number)

    before = _handle(remember)
    try:
        yield
    finally:
        _restore(before)
        for number in waiting:
            signal.raise_signal(number)


def _handle(handler: Any) -> dict[int, Any]:
    """Set the handler of every signal that is not ignored; the handlers that were there."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    # None: set by C code, which Python cannot put back.
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    return before


def _restore(before: dict[int, Any]) -> None:
    for number, old in before.items():
        signal.signal(number, old)
