"""Networks in a forked child.

A fork copies the memory of a process but none of its threads. A network that was opened before cannot be run in the
child, nor be freed there: both would wait for ever for threads that do not exist. So the child forgets it without
freeing it. What can be opened again in a child is; the others refuse to run and say what helps.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any, Protocol

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


def not_in_a_child(name: str) -> InputError:
    """The error of a network that was opened before a fork and is used in the child."""
    return InputError(
        f"This {name} network was opened before the process was forked and cannot run in the child.",
        remedy="open the Runtime in the child, or start processes with multiprocessing.get_context('spawn')",
    )


def _in_child() -> None:
    for backend in list(_open):
        backend.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
