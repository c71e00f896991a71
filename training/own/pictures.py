"""Pictures of a classifier's report: the confusion matrix and a sheet of its worst images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cast_sdk.training.metrics.saving import pyplot, save, words

Pixels = npt.NDArray[np.uint8]
SHOWN = 30  # classes of a confusion matrix that is still readable
NAME = 24  # characters of a class name


def draw_confusion(
    matrix: npt.NDArray[np.int64], classes: Sequence[str], file: Path, *, share_only: bool = False
) -> str:
    """Rows are true classes, columns predicted ones, in shares of the row. Returns what is shown, for people.

    Args:
        matrix: images by true and predicted class.
        classes: their names.
        file: PNG to write. Of more than SHOWN classes those with the most errors are drawn.
        share_only: write percentages into the fields, not numbers.
    """
    text = f"all {len(classes)} classes"
    order = np.arange(len(classes))
    if len(classes) > SHOWN:
        errors = matrix.sum(0) + matrix.sum(1) - 2 * np.diag(matrix)
        order = np.sort(np.argsort(-errors, kind="stable")[:SHOWN])
        text = f"the {SHOWN} of {len(classes)} classes with the most errors"
    shown = matrix[np.ix_(order, order)]
    share = shown / np.maximum(matrix[order].sum(1, keepdims=True), 1)
    side = min(3.2 + 0.42 * len(order), 14)
    figure, axis = pyplot().subplots(figsize=(side, side), layout="constrained")
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = [words(classes[int(at)], NAME) for at in order]
    upright = len(order) > 5 or max(map(len, names)) > 12
    axis.set_xticks(range(len(order)), names, rotation=90 if upright else 0, fontsize=8)
    axis.set_yticks(range(len(order)), names, fontsize=8)
    axis.set(xlabel="predicted", ylabel="true")
    for row, column in zip(*np.nonzero(shown), strict=True):
        colour = "white" if share[row, column] > 0.5 else "#222222"
        if share_only and share[row, column] < 0.005:
            continue
        text_of = f"{100 * share[row, column]:.0f}" if share_only else str(shown[row, column])
        axis.text(column, row, text_of, ha="center", va="center", fontsize=8, color=colour)
    axis.spines[:].set_visible(False)
    save(figure, file, bbox_inches="tight")
    return text


def draw_sheet(tiles: Sequence[tuple[Pixels, str, str]], file: Path, columns: int = 6) -> None:
    """Photographs with two lines of text each.

    Args:
        tiles: (RGB image, what it is, what it was taken for).
        file: JPEG to write.
        columns: photographs in a row.
    """
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    figure, axes = pyplot().subplots(
        rows, columns, figsize=(2.05 * columns, 2.5 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (image, true, guess) in zip(axes.ravel(), tiles, strict=False):
        axis.imshow(image)
        axis.set_title(words(true, NAME), fontsize=8, color="#1b6e3c", loc="left", pad=14)
        axis.text(0, 1.02, words(guess, NAME + 6), fontsize=8, color="#a3301c", transform=axis.transAxes)
    save(figure, file)
