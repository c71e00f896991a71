"""Networks in a forked child.

A fork copies the memory of a process but none of its threads. A network that was opened before cannot be run in the
child, nor be freed there: both would wait for ever for threads that do not exist. So the child forgets it without
freeing it. What can be opened again in a child is; the others refuse to run and say what helps.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Any, ClassVar, Protocol

from cast_sdk.errors import InputError


class Forgetful(Protocol):
    """A backend whose native objects a child must not touch."""

    def forget(self) -> None:
        """Called in a forked child: drop the native objects with `keep_alive`."""
        ...


_open: weakref.WeakSet[Any] = weakref.WeakSet()


def watch(backend: Forgetful) -> None:
    """Have `backend.forget()` called in every child that is forked while it is open."""
    _open.add(backend)


def keep_alive(*values: object) -> None:
    """Never free these objects, not even when the interpreter ends."""
    for value in values:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


class StaysBehind:
    """A backend that cannot be opened again in a forked child: there it refuses to run.

    A subclass names itself and the attributes that hold its native objects, each None when it is closed, and calls
    `watch(self)` once it is open and `check_process` before each run.
    """

    engine_name: ClassVar[str]
    native: ClassVar[tuple[str, ...]]
    _forgotten = False
    _lock: threading.Lock

    def forget(self) -> None:
        """In a forked child: nothing of the parent's network is run or freed."""
        held = [getattr(self, name) for name in self.native if getattr(self, name) is not None]
        if held:
            keep_alive(*held)
            self.drop()
            self._forgotten, self._lock = True, threading.Lock()  # another thread may have held the lock

    def drop(self) -> None:
        """Let go of the native objects; what nobody else holds is freed."""
        self._forgotten = False
        for name in self.native:
            setattr(self, name, None)

    def check_process(self) -> None:
        """Raises InputError in a child of the process that opened the network."""
        if self._forgotten:
            raise InputError(
                f"This {self.engine_name} network was opened before the fork of this process and cannot run in it.",
                remedy="open the Runtime in the child, or start processes with multiprocessing.get_context('spawn')",
            )


def _in_child() -> None:
    for backend in list(_open):
        backend.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
