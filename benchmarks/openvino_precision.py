"""What OpenVINO's bf16 does to the results of a model, against ONNX Runtime in float32, on real photographs.

    python benchmarks/openvino_precision.py cast_s.onnx FOLDER_OF_IMAGES [--count 100]

Prints per precision: cosine of the embeddings, equal top-1 classes, and per level the share of superpixels with the
same label and the mean intersection over union of the segments after the best assignment of one set to the other
(cluster numbers have no meaning of their own); last, milliseconds of the network, interleaved.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy.optimize import linear_sum_assignment

from cast_sdk.images import images_in
from cast_sdk.runtime import Runtime, Segmentation


def matched_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Mean intersection over union of segments under the best one-to-one assignment; unmatched segments count 0."""
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first.ravel(), second.ravel()), 1)
    union = table.sum(1, keepdims=True) + table.sum(0, keepdims=True) - table
    iou = table / union
    rows, columns = linear_sum_assignment(-iou)
    return float(iou[rows, columns].sum() / max(table.shape))


def compare(reference: Segmentation, other: Segmentation) -> dict[str, float]:
    a, b = reference.embedding, other.embedding
    row = {"cosine": float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))}
    if reference.logits is not None and other.logits is not None:
        row["top1"] = float(reference.logits.argmax() == other.logits.argmax())
    for level in range(1, reference.num_levels + 1):
        name = f"level{level}"
        row[f"{name} equal"] = float((reference.outputs[name] == other.outputs[name]).mean())
        row[f"{name} IoU"] = matched_iou(reference.labels(level), other.labels(level))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images", type=Path)
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    files = images_in(options.images, deep=True)
    files = files[:: max(1, len(files) // options.count)][: options.count]

    runtimes = {
        "onnxruntime fp32": Runtime(options.model, backend="onnxruntime", device="cpu"),
        "openvino fp32": Runtime(options.model, backend="openvino", precision="fp32"),
        "openvino bf16": Runtime(options.model, backend="openvino", precision="bf16"),
    }
    reference, *others = runtimes
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in others}
    times: dict[str, list[float]] = {name: [] for name in runtimes}
    for file in files:
        prepared = runtimes[reference].add_superpixels(runtimes[reference].prepare(file))
        results = {}
        for name, runtime in runtimes.items():
            start = perf_counter()
            outputs = runtime.infer([prepared])[0]
            times[name].append((perf_counter() - start) * 1e3)
            results[name] = runtime.finish(prepared, outputs)
        for name in others:
            rows[name].append(compare(results[reference], results[name]))

    print(f"{len(files)} images against {reference}")
    keys = rows[others[0]][0]
    print(f"{'':<16}" + "".join(f"{name:>18}" for name in others))
    for key in keys:
        print(f"{key:<16}" + "".join(f"{np.mean([row[key] for row in rows[name]]):>18.4f}" for name in others))
    for name, values in times.items():
        ratio = np.median(times[reference]) / np.median(values)
        print(f"{name:<16} median {np.median(values):6.1f} ms, min {min(values):6.1f} ms, {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
