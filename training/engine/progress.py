"""A progress bar for people, nothing in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """The items, with a bar and the remaining time on a terminal. `total`: their number where it is not known."""
    from rich.progress import track

    return track(items, description=description, total=total, transient=True, disable=not sys.stdout.isatty())
