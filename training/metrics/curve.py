"""The curve of a classifier's run: loss and validation accuracy over the images seen."""

from __future__ import annotations

from pathlib import Path

from cast_sdk.training.engine.runlog import read_log
from cast_sdk.training.metrics.saving import pyplot, save

_BLUE, _RED = "#1f5f8b", "#d1662b"


def draw_classification(run: Path, file: Path, name: str) -> None:
    """Training loss and validation accuracy over the images seen: a PNG.

    Args:
        run: folder with log.jsonl.
        file: picture to write.
        name: for the titles.
    """
    name = name.replace("$", r"\$")  # which would begin a formula
    recipe = read_log(run, "start")[-1]["recipe"]
    batch, smoothed = recipe["train"]["batch"], recipe["train"]["label_smoothing"]
    steps, validations = read_log(run, "step"), read_log(run, "validation")
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.plot([s["step"] * batch / 1e3 for s in steps], [s["loss"] for s in steps], color=_BLUE, linewidth=1)
    loss = f"{'label-smoothed ' if smoothed else ''}cross entropy"
    left.set(xlabel="images seen (thousands)", ylabel="training loss", title=f"{name}: {loss}")
    for key, label, colour in (("top1", "last weights", _BLUE), ("ema_top1", "averaged weights", _RED)):
        points = [(v["step"] * batch / 1e3, v[key]) for v in validations if key in v]
        if points:
            right.plot(*zip(*points, strict=True), marker="o", markersize=3.5, label=label, color=colour)
    right.set(
        xlabel="images seen (thousands)", ylabel="top-1 (%)", title=f"{name}: validation accuracy", ylim=(0, None)
    )
    right.legend(frameon=False)
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    save(figure, file)
