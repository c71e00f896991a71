"""Torch-TensorRT: the lowered model compiled ahead of time and kept as a torch program that Runtime runs.

For machines with a GPU and torch that want TensorRT's kernels without leaving torch. The package needs TensorRT's
libraries and a CUDA device even to be imported, so this has not been run on a machine without them (docs/tensorrt.md).
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cast_sdk.artifact import INFO_KEY, SPEC_KEY, ExportInfo
from cast_sdk.errors import ExportError, MissingDependencyError
from cast_sdk.export.lowering.lower import Shipped, lower
from cast_sdk.export.lowering.options import example_inputs, export_info, graph_options, spec_of
from cast_sdk.runtime.backends.torch_program import read_program
from cast_sdk.spec import ModelSpec
from cast_sdk.system.files import atomic_write, check_replaceable, check_writable
from cast_sdk.system.installing import pip_install

SUFFIX = ".ep"


def export_torch_trt(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    batch: int = 1,
    image_size: int | tuple[int, int] | None = None,
    superpixels: int | None = None,
    precision: Literal["fp32", "fp16"] = "fp32",
    checkpoint_sha256: str = "",
) -> ExportInfo:
    """Compile a model with Torch-TensorRT and save it as one torch program.

    Args:
        model: from `create_model` or `load_model`.
        path: ends in .ep; `Runtime(path)` runs it through torch on this kind of GPU.
        batch, image_size, superpixels: as for `export_onnx`.
        precision: "fp32" (without TF32) or "fp16" with half-precision products between float32 islands.
        checkpoint_sha256: digest of the checkpoint, for the record.

    Raises:
        ExportError: for a request that the model cannot meet, when `path` cannot be written or holds a file that this
            package did not write, or when the compilation fails.
        MissingDependencyError: when Torch-TensorRT cannot be imported here, with its own reason.
    """
    if not os.fspath(path).endswith(SUFFIX):
        raise ExportError(
            f"The output {os.fspath(path)} does not end in {SUFFIX}.",
            remedy=f"name the Torch-TensorRT program {Path(path).stem}{SUFFIX}",
        )
    check_writable(path)
    check_replaceable(path, read_program)
    if precision not in ("fp32", "fp16"):
        raise ExportError(
            f"A Torch-TensorRT program cannot be made in {precision}.",
            remedy="choose fp32 or fp16; for INT8 build an engine: "
            "cast-export --ckpt CHECKPOINT --precision int8 --calibrate FOLDER --trt",
        )
    spec, options = graph_options(
        spec_of(model),
        batch=batch,
        image_size=image_size,
        superpixels=superpixels,
        precision=precision,
    )
    torch_tensorrt = import_torch_tensorrt()
    lowered = Shipped(lower(model, options, spec)).cuda()
    inputs = tuple(value.cuda() for value in example_inputs(options, spec))
    program = torch.export.export(lowered, inputs)
    try:
        compiled = torch_tensorrt.dynamo.compile(program, inputs, disable_tf32=True)
    except Exception as error:  # it raises whatever its converters raise
        raise ExportError(
            "Torch-TensorRT could not compile the lowered model.",
            found=f"{type(error).__name__}: {error}",
            remedy="build an engine instead: cast-export --ckpt CHECKPOINT --trt",
        ) from error
    created_by = f"torch {torch.__version__}, torch-tensorrt {torch_tensorrt.__version__}"
    info = export_info(
        options, lowered.output_names, created_by=created_by, checkpoint_sha256=checkpoint_sha256, target="torch"
    )
    with atomic_write(path) as temporary:
        torch_tensorrt.save(
            compiled,
            os.fspath(temporary),
            output_format="exported_program",
            arg_inputs=list(inputs),
            extra_files=metadata(spec, info),
        )
    return info


def import_torch_tensorrt() -> Any:
    """The torch_tensorrt module.

    Raises:
        MissingDependencyError: not installed, no CUDA device, no TensorRT library, or too old to keep our record.
    """
    if not torch.cuda.is_available():
        raise MissingDependencyError(
            "This machine has no GPU for Torch-TensorRT, which needs one even to be imported.",
            found=f"torch {torch.__version__} without a usable GPU",
            remedy="build an engine: cast-export --ckpt CHECKPOINT --trt (TensorRT-RTX needs no GPU for that)",
        )
    try:
        import torch_tensorrt
    except Exception as error:  # it raises plain Exception where TensorRT's libraries are missing
        raise MissingDependencyError(
            "Torch-TensorRT cannot be imported.",
            found=f"{type(error).__name__}: {error}",
            remedy=f"{pip_install('torch-trt')}, of the version that belongs to this torch",
        ) from error
    if "extra_files" not in inspect.signature(torch_tensorrt.save).parameters:
        raise MissingDependencyError(
            f"torch-tensorrt {torch_tensorrt.__version__} is too old: it cannot keep the model's description.",
            remedy="pip install -U torch-tensorrt, with the torch that it belongs to",
        )
    return torch_tensorrt


def metadata(spec: ModelSpec, info: ExportInfo) -> dict[str, str]:
    """What travels in the program as extra files."""
    return {SPEC_KEY: spec.to_json(), INFO_KEY: info.to_json()}
