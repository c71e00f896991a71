"""Which layers may be quantised? Each one alone, measured on real images."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cast_sdk.export.precision.calibrate import Range
from cast_sdk.export.precision.quantize import Target, layers, quantize
from cast_sdk.export.verification.photos import Inputs, Progress
from cast_sdk.export.verification.quality import Thresholds, compare
from cast_sdk.export.verification.verify import open_session, run_session

if TYPE_CHECKING:
    import onnx

_STATED = Thresholds(None, None, None, None)


@dataclass(frozen=True)
class Sensitivity:
    """What happens when one layer alone is quantised.

    `error` is 1 - cosine of the centred class scores (or embeddings); `matched` the share of pixels whose segment
    stays the same, mean over the levels (1 for models without levels).
    """

    layer: str
    error: float
    matched: float


def measure(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    inputs: Inputs,
    target: Target = "onnxruntime",
    *,
    batch: int | None = 1,
    chosen: Collection[str] | None = None,
    progress: Progress | None = None,
) -> list[Sensitivity]:
    """Sensitivity of each layer, the most sensitive first.

    Args:
        model: float32 graph.
        ranges: of all its quantisable activations.
        inputs: two images or more.
        chosen: layers to measure; default: all.
    """
    expected = list(run_session(open_session(model.SerializeToString()), inputs, batch))
    names = layers(model) if chosen is None else list(chosen)
    table = []
    for number, name in enumerate(names, 1):
        session = open_session(quantize(model, ranges, [name], target).SerializeToString())
        found = run_session(session, inputs, batch)
        checks = compare(zip(expected, found, strict=True), inputs, _STATED)
        cosine = next(check.value for check in checks if check.measure == "cosine")
        matched = [check.value for check in checks if check.measure == "matched"]
        table.append(Sensitivity(name, 1 - cosine, float(np.mean(matched)) if matched else 1.0))
        if progress is not None:
            progress(number, len(names))
    return sorted(table, key=lambda row: -row.error)


def text(table: list[Sensitivity]) -> str:
    """For people."""
    width = max(len(row.layer) for row in table)
    lines = [f"{'layer quantised alone':<{width}}  {'1 - cosine':>10}  {'same segments':>13}"]
    lines += [f"{row.layer:<{width}}  {row.error:>10.1e}  {row.matched:>13.2%}" for row in table]
    return "\n".join(lines)
