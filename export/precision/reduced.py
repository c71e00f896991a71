"""Graphs of reduced precision: made, and judged against the float32 model."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from cast_sdk.errors import ExportError
from cast_sdk.export.lowering.options import GraphOptions
from cast_sdk.export.precision import sensitivity
from cast_sdk.export.precision.calibrate import Range, enough_images, find_ranges
from cast_sdk.export.precision.quantize import Target, activations, layers, quantize
from cast_sdk.export.verification.photos import Inputs, Progress
from cast_sdk.export.verification.quality import Thresholds, compare
from cast_sdk.export.verification.report import Report
from cast_sdk.export.verification.verify import Arrays, open_session, run_reference, run_session
from cast_sdk.models.cast import CastOutput
from cast_sdk.runtime.backends.onnxruntime import import_onnxruntime
from cast_sdk.spec import ModelSpec

if TYPE_CHECKING:
    import onnx

Say = Callable[[str], None]
# A layer stays float when, quantised alone, it moves the centred class scores or the segments further than this.
MAX_ERROR = 1e-2
MIN_MATCHED = 0.80
TABLE_IMAGES = 4  # for the sensitivity of each layer


def make_int8(
    model: onnx.ModelProto,
    options: GraphOptions,
    inputs: Inputs,
    target: Target,
    keep_float: Sequence[str] | None,
    say: Say,
) -> onnx.ModelProto:
    """Quantise a float32 graph.

    Args:
        model: the graph with its shipped outputs.
        inputs: at least 64 real images.
        target: who will run it.
        keep_float: patterns (as in file names) of layers that stay float; None: decided by measuring each layer.

    Raises:
        ExportError: for too few images, unusable ranges, or outputs that do not move with the image.
    """
    enough_images(len(inputs))
    names = layers(model)
    ranges = ranges_of(model, options, inputs, say)
    if keep_float is None:
        table = sensitivity_table(model, options, ranges, inputs, target, say)
        kept = {row.layer for row in table if row.error > MAX_ERROR or row.matched < MIN_MATCHED}
    else:
        kept = {name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in keep_float)}
    say(f"{len(names) - len(kept)} layers in int8, {len(kept)} stay float: {', '.join(sorted(kept)) or 'none'}")
    quantised = quantize(model, ranges, [name for name in names if name not in kept], target)
    refuse_constant(quantised, options, inputs)
    return quantised


def ranges_of(model: onnx.ModelProto, options: GraphOptions, inputs: Inputs, say: Say) -> dict[str, Range]:
    """Ranges of all activations that could be quantised."""
    names = activations(model, layers(model))
    return find_ranges(model, names, inputs, batch=options.batch, progress=progress(say, "calibrating"))


def sensitivity_table(
    model: onnx.ModelProto, options: GraphOptions, ranges: dict[str, Range], inputs: Inputs, target: Target, say: Say
) -> list[sensitivity.Sensitivity]:
    """Each layer quantised alone, the most sensitive first."""
    few = first(inputs, TABLE_IMAGES)
    return sensitivity.measure(
        model, ranges, few, target, batch=options.batch, progress=progress(say, "measuring layer by layer")
    )


def quality_report(
    model: nn.Module, spec: ModelSpec, graph: bytes, inputs: Inputs, options: GraphOptions, thresholds: Thresholds
) -> Report:
    """A reduced graph in ONNX Runtime against the training model in float32."""
    import torch

    onnxruntime = import_onnxruntime()
    reference = (arrays(output, spec) for output in run_reference(model, spec, inputs, options.num_superpixels))
    found = run_session(open_session(graph), inputs, options.batch)
    checks = compare(zip(reference, found, strict=True), inputs, thresholds, spec.grouping)
    return Report(
        len(inputs),
        f"torch {torch.__version__} (eager, float32)",
        f"onnxruntime {onnxruntime.__version__}",
        checks,
    )


def arrays(output: CastOutput, spec: ModelSpec) -> Arrays:
    """The outputs of one image that a quality report compares."""
    values: Arrays = {"embedding": output.embedding[0].numpy()}
    values |= {name: logits[0].numpy() for name, logits in output.scores.items()}
    for number, level in enumerate(output.levels, 1):
        values[f"level{number}"] = level.labels[0].numpy()
        if spec.grouping == "merged":
            values[f"assignment{number}"] = level.logits[0].softmax(-1).numpy()
    if spec.dense and output.dense is not None:
        values["semantic"] = output.dense[0].argmax(-1).numpy()
    return values


def refuse_constant(model: onnx.ModelProto, options: GraphOptions, inputs: Inputs) -> None:
    """Raises ExportError when two different images give the same embedding: a range went wrong somewhere."""
    one, other = run_session(open_session(model.SerializeToString()), first(inputs, 2), options.batch)
    if np.allclose(one["embedding"], other["embedding"], rtol=1e-4, atol=1e-6):
        raise ExportError(
            "The outputs of the quantised graph do not change with its input.",
            found=f"the same embedding for {inputs.paths[0].name} and {inputs.paths[1].name}",
            remedy="calibrate on varied images, or keep sensitive layers in float (--keep-float)",
        )


def first(inputs: Inputs, count: int) -> Inputs:
    """The first images."""
    return dataclasses.replace(
        inputs, image=inputs.image[:count], superpixels=inputs.superpixels[:count], paths=inputs.paths[:count]
    )


def progress(say: Say, what: str) -> Progress:
    """Says how far a loop is, at most every tenth."""
    said = -1

    def report(done: int, total: int) -> None:
        nonlocal said
        if done * 10 // total > said:
            said = done * 10 // total
            say(f"{what}: {done} of {total}")

    return report


def calibration_paths(found: Sequence[Path]) -> list[Path]:
    """At most 512 files, spread over all of them: folders are often sorted by class."""
    enough_images(len(found))
    step = max(1, len(found) // 512)
    return list(found)[::step][:512]
