"""Comparisons that commands offer: two artifacts of any kind, and the layers of a model one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cast_sdk.errors import InputError
from cast_sdk.export.verification.photos import find_images, read_inputs
from cast_sdk.export.verification.quality import Thresholds, compare
from cast_sdk.export.verification.report import Report
from cast_sdk.runtime.backends.base import Backend, run_images
from cast_sdk.runtime.backends.opening import PROGRAMS, choose_backend, open_backend

if TYPE_CHECKING:
    from torch import nn

    from cast_sdk.export.precision.quantize import Target
    from cast_sdk.export.precision.sensitivity import Sensitivity

Paths = Sequence[str | os.PathLike[str]]


def compare_artifacts(
    reference: str | os.PathLike[str],
    reduced: str | os.PathLike[str],
    images: Paths | None,
    thresholds: Callable[[str], Thresholds],
) -> Report:
    """Quality report of one artifact against another, each run by the backend of its kind.

    Args:
        reference, reduced: .onnx, .engine or checkpoint.
        images: files or folders; None: the photographs of the package.
        thresholds: the bars for the precision of `reduced`.

    Raises:
        InputError: when the two take inputs of different sizes.
    """
    with_reference, with_reduced = (_opened(path) for path in (reference, reduced))
    try:
        one, other = with_reference.info, with_reduced.info
        shapes = [(info.height, info.width, info.num_superpixels) for info in (one, other)]
        if shapes[0] != shapes[1]:
            raise InputError(
                "The two artifacts work at different input sizes.",
                found=" and ".join("{} x {} pixels with {} superpixels".format(*shape) for shape in shapes),
                remedy="export both with the same --image-size and --superpixels",
            )
        inputs = read_inputs(with_reference.spec, (one.height, one.width), find_images(images))
        first, second = (run_images(b, inputs.image, inputs.superpixels) for b in (with_reference, with_reduced))
        pairs = zip(first, second, strict=True)
        checks = compare(pairs, inputs, thresholds(other.precision), with_reference.spec.grouping)
    finally:
        with_reference.close()
        with_reduced.close()
    return Report(len(inputs), os.fspath(reference), os.fspath(reduced), checks)


def _opened(path: str | os.PathLike[str]) -> Backend:
    """A backend; of checkpoints the model as it was trained, since lowering it is a part of what is compared."""
    file = Path(path)
    trained = choose_backend(file) == "torch" and file.suffix.lower() not in PROGRAMS
    return open_backend(file, eager=True) if trained else open_backend(file)


def sensitivities(
    model: nn.Module, calibrate: Paths, target: Target, image_size: int | None, say: Callable[[str], None]
) -> list[Sensitivity]:
    """What quantising each layer alone does, the most sensitive first."""
    from cast_sdk.export import graph
    from cast_sdk.export.lowering.lower import lower
    from cast_sdk.export.lowering.options import graph_options, spec_of
    from cast_sdk.export.onnx_export import convert
    from cast_sdk.export.precision import reduced

    files = reduced.calibration_paths(find_images(calibrate))
    spec, options = graph_options(spec_of(model), image_size=image_size)
    lowered = lower(model, options, spec)
    full = convert(lowered)
    shipped = graph.with_outputs(full, lowered.shipped_names)
    inputs = read_inputs(spec, (options.height, options.width), files, skip_unreadable=True)
    reduced.enough_images(len(inputs))
    ranges = reduced.ranges_of(shipped, options, inputs, say)
    return reduced.sensitivity_table(shipped, options, ranges, inputs, target, say)
