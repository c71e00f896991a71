"""A trained model as one self-contained ONNX file, verified before it is written."""

from __future__ import annotations

import dataclasses
import io
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from cast_sdk._version import __version__
from cast_sdk.arguments import as_path
from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ExportError, MissingDependencyError
from cast_sdk.export import graph as graphs
from cast_sdk.export.applicable import check_arguments
from cast_sdk.export.compact import compact as compact_weights
from cast_sdk.export.lowering.lower import Lowered, lower
from cast_sdk.export.lowering.options import GraphOptions, example_inputs, export_info, graph_options, spec_of
from cast_sdk.export.precision import reduced
from cast_sdk.export.precision.quantize import Target
from cast_sdk.export.verification.photos import find_images, read_inputs
from cast_sdk.export.verification.quality import THRESHOLDS, Thresholds
from cast_sdk.export.verification.report import refuse_shortfall
from cast_sdk.export.verification.verify import verify as verify_graph
from cast_sdk.runtime.engine.onnx_metadata import read_description
from cast_sdk.spec import ModelSpec
from cast_sdk.system.files import atomic_write, check_replaceable, check_writable
from cast_sdk.system.installing import pip_install

if TYPE_CHECKING:
    import onnx

PRECISIONS = ("fp32", "fp16", "int8")
TARGETS = ("any", "cpu", "tensorrt")
OPSET = 20  # 17 brought LayerNormalization, 20 brings Gelu; TensorRT 10.3 and ONNX Runtime 1.17 read it
Say = Callable[[str], None]


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    batch: int | None = 1,
    image_size: int | tuple[int, int] | None = None,
    superpixels: int | None = None,
    soft_assignments: bool = False,
    tokens: bool = False,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    verify: bool = True,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    calibrate: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    target: Literal["any", "cpu", "tensorrt"] = "any",
    keep_float: Sequence[str] | None = None,
    thresholds: Thresholds | None = None,
    compact: bool = False,
    checkpoint_sha256: str = "",
    say: Say | None = None,
) -> ExportInfo:
    """Export a model to ONNX.

    The graph takes `image` uint8 [B,H,W,3] RGB and, for models that use them, `superpixels` int32 [B,H,W]. It gives
    `embedding` float32 [B,C], `logits` float32 [B,classes] with a classifier (then `logits2`, `logits3` of the coarser
    levels of a taxonomy), `level1..4` int32 [B,S] composed fine to coarse, and `semantic` int32 [B,S] for dense heads.

    Args:
        model: from `create_model` or `load_model`.
        path: the .onnx file to write; replaced only when everything went well.
        batch: images per call; None: any number.
        image_size: side, or (height, width), in pixels. Default: the model's own. Only segmentation models take others.
        superpixels: how many SEEDS is asked for. Default: the model's own.
        soft_assignments: also give `assignment1..4` float32 [B,S_l,K_l], the softmax of each pooling.
        tokens: also give `tokens1..4` float32 [B,S_l,C], and `dense` float32 [B,S,n] of segmentation models.
        precision: "fp32"; "fp16": half-precision products between float32 islands; "int8": convolutions and linear
            layers in integers, calibrated on real images.
        verify: run the graph beside the model on real images and fail on a shortfall: of the bars of
            `cast_sdk.export.verification.verify` for fp32, of `thresholds` for the others.
        images: files or folders for the verification. Default: the photographs that come with the package, for int8 up
            to 64 of the calibration images too.
        calibrate: files or folders of at least 64 images, for int8.
        target: who will run the graph. "any"; "cpu": ONNX Runtime or OpenVINO on a processor, where segmentation
            models run up to twice as fast by it (other models have one graph for all); "tensorrt": needed for int8,
            whose activations are symmetric there and unsigned elsewhere.
        keep_float: patterns of node names that int8 leaves alone. Default: decided by measuring each layer.
        thresholds: bars of the quality report of fp16 and int8; default `verification.quality.THRESHOLDS`.
        compact: store fp32 weights that are exact in float16 in half the space (checkpoints in half precision).
        checkpoint_sha256: digest of the checkpoint, for the record.
        say: called with a line for each step, and the verification table.

    Returns:
        The record that is also stored in the file; `verification` holds the parity table (empty: not verified).

    Raises:
        ExportError: for a request the model cannot meet, an unwritable path, or a graph that falls short of the bars.
    """
    say = say or _silent
    if target not in TARGETS:
        raise ExportError(f"There is no target {target!r}.", remedy=f"choose one of: {', '.join(TARGETS)}")
    check_arguments(precision, verify, images=images, calibrate=calibrate, keep_float=keep_float, thresholds=thresholds)
    recipe: Target = "tensorrt" if target == "tensorrt" else "onnxruntime"
    spec, options = request(
        model,
        path,
        precision=precision,
        batch=batch,
        image_size=image_size,
        superpixels=superpixels,
        soft_assignments=soft_assignments,
        tokens=tokens,
        target="cpu" if target == "cpu" else "any",
    )
    if target == "cpu" and options.target == "any":
        say(f"the graph of {spec.name} is the same for every target")
    files = find_images(images) if verify else []
    calibration: list[Path] = []
    if precision == "int8":
        if calibrate is None:
            raise ExportError(
                "INT8 was asked for without real images to calibrate it on.",
                remedy="name at least 64 with --calibrate DIR (or calibrate=)",
            )
        calibration = reduced.calibration_paths(find_images(calibrate))
        if verify and images is None:
            files = files + calibration[:: max(1, len(calibration) // 64)][:64]
    require_packages()

    say(f"lowering {spec.name} ({options.height} x {options.width} pixels, {options.num_superpixels} superpixels)")
    lowered = lower(model, options, spec)
    say("converting to ONNX")
    full = convert(lowered)
    shipped = graphs.with_outputs(full, lowered.shipped_names)
    if precision == "int8":
        say(f"reading {len(calibration)} images for calibration")
        size = (options.height, options.width)
        examples = read_inputs(spec, size, calibration, skip_unreadable=True)
        shipped = reduced.make_int8(shipped, options, examples, recipe, keep_float, say)
    if compact:
        shipped, full = compact_weights(shipped), compact_weights(full)
    graphs.check(shipped)
    say(f"{len(shipped.graph.node)} nodes, rules kept")

    verification: dict[str, Any] = {}
    if verify:
        say(f"verifying on {len(files)} images")
        inputs = read_inputs(spec, (options.height, options.width), files)
        graph = shipped.SerializeToString()
        if precision == "fp32":
            report = verify_graph(
                model,
                spec,
                graph,
                inputs,
                batch=options.batch,
                count=options.num_superpixels,
                sampled_graph=full.SerializeToString() if spec.hierarchical else None,
            )
        else:
            bars = thresholds or THRESHOLDS[precision]
            report = reduced.quality_report(model, spec, graph, inputs, options, bars)
        say(report.table())
        refuse_shortfall(
            report,
            "The exported graph does not agree with the model on real images.",
            "nothing was written; look at the table, or name other images with --images",
        )
        verification = report.to_dict()

    info = export_info(
        options,
        [value.name for value in shipped.graph.output],
        created_by=f"torch {torch.__version__}",
        opset=next(entry.version for entry in shipped.opset_import if entry.domain in ("", "ai.onnx")),
        checkpoint_sha256=checkpoint_sha256,
        verification=verification,
    )
    if precision == "int8":
        info = dataclasses.replace(info, precision=precision)
        if options.target == "any":
            info = dataclasses.replace(info, target=recipe)
    graphs.set_metadata(shipped, spec, info)
    write(shipped, path)
    return info


def request(
    model: nn.Module, path: str | os.PathLike[str], *, precision: str, **options: Any
) -> tuple[ModelSpec, GraphOptions]:
    """All checks that cost nothing, before any work.

    Raises:
        ExportError: see `export_onnx`.
    """
    check_target(path)
    if precision not in PRECISIONS:
        raise ExportError(f"Unknown precision {precision!r}.", remedy=f"choose one of: {', '.join(PRECISIONS)}")
    return graph_options(spec_of(model), precision="fp16" if precision == "fp16" else "fp32", **options)


def check_target(path: str | os.PathLike[str]) -> None:
    """The output can be written, as far as that can be seen beforehand.

    Raises:
        ExportError: for another suffix, a folder, a folder that is missing or closed to us, or an .onnx file that is
            there and is none of this package's exports.
    """
    target = as_path(path)
    if target.suffix != ".onnx":
        raise ExportError(
            f"The output {target} does not end in .onnx.", remedy=f"name it {target.stem}.onnx, as with --out"
        )
    check_writable(target)
    check_replaceable(target, read_description)


def require_packages() -> None:
    """The packages of the extra `export`.

    Raises:
        MissingDependencyError: naming the one that is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "onnx and onnxscript, which exporting needs, cannot be imported.",
            found=str(error),
            remedy=pip_install("export"),
        ) from error


def convert(lowered: Lowered) -> onnx.ModelProto:
    """The graph of a lowered module with all its outputs, folded and tidy, in memory.

    Uses torch's TorchScript-based exporter: the lowered module is static and plain, so both exporters give nearly the
    same graph, and this one does it in half the time and on every torch from 2.4 (docs/export.md).
    """
    import onnx

    options = lowered.options
    axes = None
    if options.batch is None:
        axes = {name: {0: "batch"} for name in (*lowered.input_names, *lowered.output_names)}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about itself and about every constant it folds
        torch.onnx.export(
            lowered,
            example_inputs(options, lowered.spec),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            external_data=False,
            opset_version=OPSET,
            input_names=lowered.input_names,
            output_names=lowered.output_names,
            dynamic_axes=axes,
        )
    model = graphs.tidy(onnx.load_from_string(buffer.getvalue()))
    model.producer_name, model.producer_version = "cast_sdk", __version__
    return model


def write(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """One file, in full or not at all."""
    import onnx

    with atomic_write(path) as temporary:
        onnx.save_model(model, os.fspath(temporary), save_as_external_data=False)


def _silent(_: str) -> None:
    return None
