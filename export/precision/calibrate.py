"""Ranges of activations on real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cast_sdk.errors import ExportError
from cast_sdk.export.verification.photos import Inputs, Progress
from cast_sdk.export.verification.verify import open_session, run_session

if TYPE_CHECKING:
    import onnx

MIN_IMAGES = 64  # fewer say too little about the ranges


@dataclass(frozen=True)
class Range:
    """Smallest and largest value of an activation."""

    low: float
    high: float


def enough_images(count: int) -> None:
    """Raises ExportError for fewer than `MIN_IMAGES` readable images."""
    if count < MIN_IMAGES:
        raise ExportError(
            f"{count} images are too few to find the ranges of the activations for INT8.",
            remedy=f"name at least {MIN_IMAGES} with --calibrate DIR, like those the model will see",
        )


def find_ranges(
    model: onnx.ModelProto,
    names: Sequence[str],
    inputs: Inputs,
    *,
    batch: int | None = 1,
    progress: Progress | None = None,
) -> dict[str, Range]:
    """Run the float32 graph over images and note the extremes of these values.

    The range of a value is the mean over the images of their extremes, widened half-way to the overall ones: one
    unusual image does not cost all others resolution.

    Raises:
        ExportError: when a value never changes, is not finite, or is the same for every image.
    """
    import onnx as onnx_package

    probe = onnx_package.ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in [*probe.graph.input, *probe.graph.output]}
    lows: dict[str, list[float]] = {name: [] for name in names}
    highs: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        if name not in known:
            probe.graph.output.append(onnx_package.helper.make_empty_tensor_value_info(name))
    session = open_session(probe.SerializeToString())
    for number, values in enumerate(run_session(session, inputs, batch), 1):
        for name in names:
            lows[name].append(float(values[name].min()))
            highs[name].append(float(values[name].max()))
        if progress is not None:
            progress(number, len(inputs))
    ranges = {name: _range(np.array(lows[name]), np.array(highs[name])) for name in names}
    check_ranges(ranges)
    return ranges


def check_ranges(ranges: Mapping[str, Range]) -> None:
    """Raises ExportError for ranges that would make a layer constant or infinite, naming them."""
    bad = [
        f"{name} [{value.low:g}, {value.high:g}]"
        for name, value in ranges.items()
        if not (np.isfinite([value.low, value.high]).all() and value.high - value.low > 1e-6)
    ]
    if bad:
        raise ExportError(
            "The calibrated ranges of some activations are empty or infinite.",
            found="; ".join(bad[:5]) + (f"; and {len(bad) - 5} more" if len(bad) > 5 else ""),
            remedy="check the checkpoint and the calibration images (all black?)",
        )


def _range(lows: np.ndarray, highs: np.ndarray) -> Range:
    return Range(float((lows.mean() + lows.min()) / 2), float((highs.mean() + highs.max()) / 2))
