"""Does an engine give what its graph gives?

As a program: python -m cast_sdk.export.verification.engine_parity ENGINE ONNX IMAGE...
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Outputs = Mapping[str, npt.NDArray[Any]]
# Bars by precision: largest error of embedding and logits relative to their magnitude, and share of superpixels whose
# segment is the same. A near tie of the sampler renumbers segments, so below float32 numbers are matched first.
ERROR = {"fp32": 1e-3, "fp16": 3e-2, "int8": 1e-1}
SHARE = {"fp32": 0.98, "fp16": 0.9, "int8": 0.85}


def compare(precision: str, pairs: Iterable[tuple[Outputs, Outputs]]) -> dict[str, Any]:
    """Compare outputs of the graph with those of the engine, image by image.

    Args:
        precision: "fp32", "fp16" or "int8", of the graph.
        pairs: (graph's, engine's) outputs by name, with or without a batch axis of 1.

    Returns:
        `errors` and `labels` by output, `images`, `passed` and `shortfalls`, sentences about what missed its bar.
    """
    errors: dict[str, float] = defaultdict(float)
    shares: dict[str, list[float]] = defaultdict(list)
    equal: dict[str, list[float]] = defaultdict(list)
    finite, images = True, 0
    for expected, found in pairs:
        images += 1
        for name, value in expected.items():
            other = found[name]
            if value.dtype.kind == "f":
                finite = finite and bool(np.isfinite(other).all())
                scale = max(float(np.abs(value).max()), 1e-6)
                errors[name] = max(errors[name], float(np.abs(value - other).max()) / scale)
            else:
                equal[name].append(float(np.mean(value == other)))
                shares[name].append(matched_share(value.ravel(), other.ravel()))
    table = {name: {"equal": _mean(equal[name]), "matched": _mean(shares[name])} for name in shares}
    key = "equal" if precision == "fp32" else "matched"
    short = [
        f"{name}: error {error:.2g} of its magnitude, bar {ERROR[precision]:g}"
        for name, error in errors.items()
        if error > ERROR[precision] and name in ("embedding", "logits")
    ]
    short += [
        f"{name}: {row[key]:.1%} of the labels {key}, bar {SHARE[precision]:.0%}"
        for name, row in table.items()
        if row[key] < SHARE[precision]
    ]
    if not finite:
        short.append("outputs that are not finite")
    if images == 0:
        short.append("no image was compared")
    return {"images": images, "errors": dict(errors), "labels": table, "passed": not short, "shortfalls": short}


def matched_share(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """How far two labelings are the same partition, whatever the numbers: 0..1.

    Each segment of one is given the most frequent label it has in the other; the share that is explained, for the worse
    of both directions. 1 exactly when the partitions are equal.
    """
    _, rows = np.unique(first, return_inverse=True)
    _, columns = np.unique(second, return_inverse=True)
    counts = np.zeros((rows.max() + 1, columns.max() + 1), np.int64)
    np.add.at(counts, (rows.ravel(), columns.ravel()), 1)
    return float(min(counts.max(0).sum(), counts.max(1).sum()) / len(first))


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 6)


def run(engine: Path, onnx: Path, images: list[Path]) -> dict[str, Any]:
    """Compare an engine with its graph in ONNX Runtime on images."""
    from cast_sdk.export.verification.photos import read_inputs
    from cast_sdk.runtime.backends.onnxruntime import OnnxRuntimeBackend
    from cast_sdk.runtime.backends.tensorrt import TensorRTBackend

    trusted = TensorRTBackend(engine, allow_host_code=True)  # built here a moment ago
    graph = OnnxRuntimeBackend(onnx, device="cpu", threads=2)
    info = trusted.info
    inputs = read_inputs(trusted.spec, (info.height, info.width), images, skip_unreadable=True)
    clocks: dict[str, list[float]] = defaultdict(list)

    def pairs() -> Iterable[tuple[Outputs, Outputs]]:
        for image, labels in zip(inputs.image, inputs.superpixels, strict=True):
            given = [np.repeat(array[None], info.batch or 1, axis=0) for array in (image, labels)]
            found = trusted.run(*given)
            for clock, value in trusted.timing.items():
                clocks[clock].append(value)
            yield graph.run(*given), found

    result = compare(info.precision, pairs())
    return {
        "ran": True,
        "gpu": trusted.gpu.name,
        "against": "ONNX Runtime on the CPU",
        "cuda_graph": trusted.uses_graph,
        "median_ms": {clock: round(statistics.median(values), 4) for clock, values in clocks.items()},
        **result,
    }


def main() -> None:
    """Print the comparison as one line of JSON."""
    engine, onnx, *images = map(Path, sys.argv[1:])
    print(json.dumps(run(engine, onnx, images)))


if __name__ == "__main__":
    main()
