"""Does an engine give what its graph gives?

As a program: python -m cast_sdk.export.verification.engine_parity ENGINE ONNX IMAGE...
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.export.verification.quality import Arrays, label_agreement
from cast_sdk.export.verification.report import Check, Report


@dataclass(frozen=True)
class Bars:
    """What an engine must reach against its own graph; None: stated, not judged."""

    error: float  # of embedding and logits, relative to their magnitude
    superpixels: float | None  # share of superpixels with equal labels
    matched: float | None  # share of pixels with the same segment after matching


# A near tie of the sampler renumbers segments, so below float32 they are matched first.
BARS = {
    "fp32": Bars(error=1e-3, superpixels=0.98, matched=None),
    "fp16": Bars(error=3e-2, superpixels=None, matched=0.9),
    "bf16": Bars(error=1e-1, superpixels=None, matched=0.85),
    "int8": Bars(error=1e-1, superpixels=None, matched=0.85),
}


def compare(precision: str, runs: Iterable[tuple[Arrays, Arrays, npt.NDArray[np.int32]]]) -> list[Check]:
    """Compare outputs of the graph with those of the engine.

    Args:
        precision: "fp32", "fp16", "bf16" or "int8", of what is compared.
        runs: outputs of the graph and of the engine, by name with the batch first, and the superpixels int32 [B,H,W]
            that both were given.

    Returns:
        Per float output the largest error relative to its magnitude (NaN where the engine's is not finite, which never
        passes), judged for embedding and class scores; per label output the shares of equal and of matched labels.
    """
    bars = BARS[precision]
    errors: dict[str, list[float]] = defaultdict(list)
    equal: dict[str, list[float]] = defaultdict(list)
    matched: dict[str, list[float]] = defaultdict(list)
    for expected, found, superpixels in runs:
        for name, values in expected.items():
            for row, (value, other) in enumerate(zip(values, found[name], strict=True)):
                if value.dtype.kind == "f":
                    scale = max(float(np.abs(value).max()), 1e-6)
                    finite = bool(np.isfinite(other).all())
                    errors[name].append(float(np.abs(value - other).max()) / scale if finite else float("nan"))
                else:
                    sizes = np.bincount(superpixels[row].ravel(), minlength=len(value))
                    equal[name].append(float(np.mean(value == other)))
                    matched[name].append(label_agreement(name, value, other, sizes)[0])
    checks = []
    for name, found_errors in errors.items():
        judged = name == "embedding" or name.startswith("logits")
        worst = float(np.max(found_errors))  # NaN where one is
        checks.append(Check(name, "error", worst, bars.error if judged else None, len(found_errors)))
    for name, shares in equal.items():
        checks.append(Check(name, "superpixels", float(np.mean(shares)), bars.superpixels, len(shares)))
        checks.append(Check(name, "matched", float(np.mean(matched[name])), bars.matched, len(shares)))
    return checks


def run(engine: Path, onnx: Path, images: list[Path]) -> dict[str, Any]:
    """Compare an engine with its graph in ONNX Runtime on images: the report as plain data, and what else was seen."""
    from cast_sdk.export.verification.photos import read_inputs
    from cast_sdk.runtime.backends.base import run_images
    from cast_sdk.runtime.backends.onnxruntime import OnnxRuntimeBackend
    from cast_sdk.runtime.backends.tensorrt import TensorRTBackend

    trusted = TensorRTBackend(engine, allow_host_code=True)  # built here a moment ago
    graph = OnnxRuntimeBackend(onnx, device="cpu", threads=2)
    info = trusted.info
    inputs = read_inputs(trusted.spec, (info.height, info.width), images, skip_unreadable=True)
    clocks: dict[str, list[float]] = defaultdict(list)

    def runs() -> Iterator[tuple[Arrays, Arrays, npt.NDArray[np.int32]]]:
        rows = (run_images(backend, inputs.image, inputs.superpixels) for backend in (graph, trusted))
        for expected, found, labels in zip(*rows, inputs.superpixels, strict=True):
            for clock, value in trusted.timing.items():
                clocks[clock].append(value)
            yield _batched(expected), _batched(found), labels[None]

    checks = compare(info.precision, runs())
    report = Report(len(inputs), "ONNX Runtime on the CPU", f"the engine on {trusted.gpu.name}", checks)
    return {
        "ran": True,
        "gpu": trusted.gpu.name,
        "cuda_graph": trusted.uses_graph,
        "median_ms": {clock: round(statistics.median(values), 4) for clock, values in clocks.items()},
        **report.to_dict(),
    }


def _batched(row: Arrays) -> Arrays:
    return {name: value[None] for name, value in row.items()}


def main() -> None:
    """Print the comparison as one line of JSON."""
    engine, onnx, *images = map(Path, sys.argv[1:])
    print(json.dumps(run(engine, onnx, images)))


if __name__ == "__main__":
    main()
