"""Figures, written whole or not at all."""

from __future__ import annotations

import warnings
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
    legible(figure)
    with atomic_write(file) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")  # a box stands for it
        figure.savefig(temporary, dpi=110, format=kind, **options)
    pyplot().close(figure)


def legible(figure: Any) -> None:
    """Take the letters that matplotlib's own font lacks, such as Chinese ones, from fonts of this machine."""
    from matplotlib.font_manager import findfont, fontManager, get_font
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    families = ["DejaVu Sans"]
    shown = {ord(letter) for text in texts for letter in text.get_text() if letter.isprintable()}
    missing = shown - _letters(get_font, findfont(families[0]))
    for entry in fontManager.ttflist:
        if not missing:
            break
        found = missing & _letters(get_font, entry.fname)
        if found:
            families.append(entry.name)
            missing -= found
    if len(families) > 1:
        for text in texts:
            text.set_fontfamily(families)


def _letters(open_font: Any, file: str) -> set[int]:
    try:
        return set(open_font(file).get_charmap())
    except (OSError, RuntimeError):  # removed since matplotlib listed it, or no font that it reads
        return set()
