"""A progress bar for people, nothing in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Sequence[Item], description: str) -> Iterable[Item]:
    """The items, with a bar and the remaining time on a terminal."""
    from rich.progress import track

    return track(items, description=description, transient=True, disable=not sys.stdout.isatty())
