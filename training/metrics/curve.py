"""The curve of a classifier's run: loss and validation accuracy over the images seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cast_sdk.training.engine.runlog import read_log
from cast_sdk.training.metrics.saving import pyplot, save, words

_BLUE, _RED, _GREY = "#1f5f8b", "#d1662b", "#777777"


def draw_classification(run: Path, file: Path, name: str, before: float | None = None) -> None:
    """Training loss and validation accuracy over the images seen: a PNG.

    Args:
        run: folder with log.jsonl.
        file: picture to write.
        name: for the titles.
        before: accuracy of the start in percent, drawn as a line.
    """
    name = words(name)
    recipe = read_log(run, "start")[-1]["recipe"]
    batch, smoothed = recipe["train"]["batch"], recipe["train"]["label_smoothing"]
    steps, validations = read_log(run, "step"), read_log(run, "validation")
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.plot([s["step"] * batch / 1e3 for s in steps], [s["loss"] for s in steps], color=_BLUE, linewidth=1)
    loss = f"{'label-smoothed ' if smoothed else ''}cross entropy"
    left.set(xlabel="images seen (thousands)", ylabel="training loss", title=f"{name}: {loss}")
    drawn = [] if before is None else [before]
    for key, label, colour in (("top1", "last weights", _BLUE), ("ema_top1", "averaged weights", _RED)):
        points = [(v["step"] * batch / 1e3, v[key]) for v in validations if key in v]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", markersize=3.5, label=label, color=colour)
            drawn += [accuracy for _, accuracy in points]
    if before is not None:
        right.axhline(before, color=_GREY, linewidth=1, linestyle="--", label="before fine-tuning")
    right.set(xlabel="images seen (thousands)", ylabel="top-1 (%)", title=f"{name}: validation accuracy")
    right.set_ylim(*span(drawn))
    right.legend(frameon=False)
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    save(figure, file)


def span(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis in percent for these values: from 0 where they rise from below, else near to them."""
    low, high = (min(values), max(values)) if values else (0.0, 100.0)
    room = max(high - low, 5.0)
    return max(0.0, low - room), min(100.5, high + 0.2 * room)
