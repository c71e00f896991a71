"""Figures, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cast_sdk.system.files import atomic_write


def pyplot() -> Any:
    """matplotlib.pyplot, which draws into files only."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as found

    return found


def words(name: str, length: int | None = None) -> str:
    """A name that matplotlib draws as it is: dollar signs begin no formula, underscores hide no entry of a legend."""
    if length is not None and len(name) > length:
        name = name[: length - 1] + "…"
    return f"{' ' if name.startswith('_') else ''}{name}".replace("$", r"\$")


def save(figure: Any, file: Path, **options: Any) -> None:
    """Write a figure in the format that the file's name says, such as PNG, JPEG or SVG, and close it.

    Args:
        figure: of matplotlib.
        file: to write.
        options: of its `savefig`.
    """
    kind = file.suffix.lower().removeprefix(".") or "png"
    if kind in ("jpg", "jpeg"):
        options["pil_kwargs"] = {"quality": 85}
    with atomic_write(file) as temporary:
        figure.savefig(temporary, dpi=110, format=kind, **options)
    pyplot().close(figure)
