"""Pictures of a segmentation run: its curve with the baselines, and photographs with truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.runtime.output.colours import class_colours
from cast_sdk.training.data.dense.base import DenseSplit
from cast_sdk.training.engine.runlog import read_log
from cast_sdk.training.metrics import scores_file
from cast_sdk.training.metrics.saving import pyplot, save, words

_BLUE, _GREY = "#1f5f8b", "#777777"

Pixels = npt.NDArray[np.uint8]


def palette(split: DenseSplit) -> Pixels:
    """RGB per class value 0..255: uint8 [256, 3]; black for 255."""
    colours = np.zeros((256, 3), np.uint8)
    count = len(split.class_names)
    colours[:count] = np.array(split.palette, np.uint8) if split.palette else class_colours(count)[:, ::-1]
    return colours


def blend(image: Pixels, classes: Pixels, colours: Pixels) -> Pixels:
    """The photograph under its class colours; pixels that do not count are dark."""
    return np.round(0.35 * image + 0.65 * colours[classes]).astype(np.uint8)


def draw_curve(run: Path, file: Path, baselines: Path | None = None) -> None:
    """Training loss and validation mean IoU over the epochs, baselines as lines: a PNG or SVG.

    Args:
        run: folder with log.jsonl.
        file: picture to write.
        baselines: baselines.json of `segment.py baselines`.
    """
    steps, validations = read_log(run, "step"), read_log(run, "validation")
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    left.plot([entry["step"] for entry in steps], [entry["loss"] for entry in steps], color=_BLUE, linewidth=1)
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    scores = [entry["mean_iou"] for entry in validations]
    right.plot([entry["step"] for entry in validations], scores, color=_BLUE, marker="o", markersize=4)
    right.set(xlabel="step", ylabel="validation mIoU (%)", ylim=(0, 1.15 * max(*scores, 1)))
    if baselines is not None:
        for name, entry in scores_file.read(baselines).items():
            if entry["mean_iou"] < 1.1 * max(scores):
                right.axhline(entry["mean_iou"], color=_GREY, linewidth=0.9, linestyle="--")
                right.text(0.99, entry["mean_iou"] + 0.4, name, ha="right", va="bottom", fontsize=8, color=_GREY,
                           transform=right.get_yaxis_transform())  # fmt: skip
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    save(figure, file)


def draw_examples(
    examples: Sequence[tuple[Pixels, Pixels, Pixels]],
    split: DenseSplit,
    colours: Pixels,
    file: Path,
    names: Sequence[str] = (),
) -> None:
    """Rows of photograph, ground truth and prediction with a legend of the classes.

    Args:
        examples: (RGB image, true classes, predicted classes) each.
        split: for the class names.
        colours: uint8 [256, 3] RGB by class.
        file: picture to write.
        names: what to write below each photograph; empty: nothing.
    """
    from matplotlib.patches import Patch

    heights = [9.5 / 3 * image.shape[0] / image.shape[1] + (0.2 if names else 0) for image, _, _ in examples]
    figure, axes = pyplot().subplots(
        len(examples), 3, figsize=(9.5, sum(heights) + 0.9), layout="constrained", squeeze=False, height_ratios=heights
    )
    for row, (image, truth, predicted) in zip(axes, examples, strict=True):
        for axis, picture in zip(row, (image, colours[truth], colours[predicted]), strict=True):
            axis.imshow(picture)
            axis.axis("off")
    for axis, name in zip(axes[:, 0], names, strict=False):
        axis.text(0, -0.03, words(name, 60), fontsize=7, va="top", color=_GREY, transform=axis.transAxes)
    for axis, title in zip(axes[0], ("photograph", "ground truth", "prediction"), strict=True):
        axis.set_title(title, fontsize=10)
    labels = [words(name, 24) for name in split.class_names]
    handles: list[Any] = [Patch(color=colours[index] / 255, label=label) for index, label in enumerate(labels)]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    save(figure, file)
