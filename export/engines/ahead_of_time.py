"""AOTInductor: the lowered model compiled ahead of time to a package of machine code, which torch runs.

For machines that have torch and want the speed of a compiled model without compiling it at every start. A package fits
one kind of device: this processor's instructions, or this GPU's compute capability.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ExportError, MissingDependencyError
from cast_sdk.export.engines.torch_trt import metadata
from cast_sdk.export.lowering.lower import Shipped, lower
from cast_sdk.export.lowering.options import example_inputs, export_info, graph_options, spec_of
from cast_sdk.export.precision.reduced import arrays
from cast_sdk.export.verification.photos import Inputs, find_images, read_inputs
from cast_sdk.export.verification.quality import THRESHOLDS, Thresholds, compare
from cast_sdk.export.verification.report import Report, refuse_shortfall
from cast_sdk.export.verification.verify import Arrays, run_reference, verify_outputs
from cast_sdk.runtime.backends.base import run_images
from cast_sdk.runtime.backends.torch_program import TorchProgramBackend, read_program
from cast_sdk.runtime.backends.torch_settings import check_precision, exact_float32
from cast_sdk.spec import ModelSpec
from cast_sdk.system.files import atomic_write, check_replaceable, check_writable

SUFFIX = ".pt2"


def export_ahead_of_time(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    batch: int = 1,
    image_size: int | tuple[int, int] | None = None,
    superpixels: int | None = None,
    precision: Literal["fp32", "fp16", "bf16"] = "fp32",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    verify: bool = True,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    thresholds: Thresholds | None = None,
    checkpoint_sha256: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> ExportInfo:
    """Compile a model with AOTInductor and save it as one package.

    Args:
        model: from `create_model` or `load_model`.
        path: ends in .pt2; `Runtime(path, allow_code=True)` runs it.
        batch, image_size, superpixels: as for `export_onnx`; the batch is fixed.
        precision: as for the torch backend: "fp32"; "bf16" on GPUs and processors that compute with it; "fp16" on GPUs.
        device: what it is compiled for; "auto": the GPU where torch finds one, else this processor.
        verify: run the package beside the model on real images and fail on a shortfall.
        images: files or folders for that. Default: the photographs that come with the package.
        thresholds: bars of the quality report of fp16 and bf16; default `verification.quality.THRESHOLDS`.
        checkpoint_sha256: digest of the checkpoint, for the record.
        say: called with a line for each step, and the verification table.

    Returns:
        The record that is also stored in the file.

    Raises:
        ExportError: for a request that the model cannot meet, when `path` cannot be written or holds a file that this
            package did not write, when the compilation fails, or when the package falls short.
        InputError, MissingDependencyError: for a precision or device that is not there, or without a C++ compiler.
    """
    if not os.fspath(path).endswith(SUFFIX):
        raise ExportError(
            f"The output {os.fspath(path)} does not end in {SUFFIX}.",
            remedy=f"name the package {Path(path).stem}{SUFFIX}",
        )
    check_writable(path)
    check_replaceable(path, read_program)
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingDependencyError(
            "There is no GPU to compile for.",
            found=f"torch {torch.__version__} without a usable GPU",
            remedy="compile on the machine that will run it, or for this processor (--target cpu)",
        )
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    check_precision(precision, place)
    spec, options = graph_options(
        spec_of(model),
        batch=batch,
        image_size=image_size,
        superpixels=superpixels,
        precision=precision,
        target="cpu" if place == "cpu" else "any",
    )
    files = find_images(images) if verify else []
    lowered = Shipped(lower(model, options, spec)).to(place)
    info = export_info(
        options,
        lowered.output_names,
        created_by=f"torch {torch.__version__}, AOTInductor for {place}",
        checkpoint_sha256=checkpoint_sha256,
    )
    say(f"compiling {spec.name} for {'this GPU' if place == 'cuda' else 'this processor'}")
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / f"model{SUFFIX}"
        _compile(lowered, tuple(value.to(place) for value in example_inputs(options, spec)), package, spec, info)
        if verify:
            say(f"verifying on {len(files)} images")
            inputs = read_inputs(spec, (options.height, options.width), files)
            report = judge(model, spec, info, package, inputs, thresholds)
            say(report.table())
            refuse_shortfall(
                report,
                "The package does not agree with the model on real images.",
                "nothing was written; look at the table, or name other images with --images",
            )
        with atomic_write(path) as temporary:
            shutil.copyfile(package, temporary)
    return info


def _compile(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], package: Path, spec: ModelSpec, info: ExportInfo
) -> None:
    """Compile a module to a package that holds its description."""
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    with torch.no_grad(), exact_float32(torch):
        program = torch.export.export(module, inputs)
        try:
            with _quiet():
                aoti_compile_and_package(
                    program,
                    package_path=os.fspath(package),
                    inductor_configs={"aot_inductor.metadata": metadata(spec, info)},
                )
        except (InvalidCxxCompiler, FileNotFoundError) as error:
            raise MissingDependencyError(
                "AOTInductor needs a C++ compiler, and there is none.",
                found=str(error).splitlines()[0],
                remedy="sudo apt install g++",
            ) from error
        except (CppCompileError, RuntimeError) as error:  # what its passes raise
            raise ExportError(
                "AOTInductor could not compile the lowered model.",
                found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
                remedy="run the checkpoint itself (Runtime), or export it to .onnx",
            ) from error


def judge(
    model: nn.Module, spec: ModelSpec, info: ExportInfo, package: Path, inputs: Inputs, thresholds: Thresholds | None
) -> Report:
    """The package against the training model in float32 on the CPU, by the bars of its precision."""
    backend = TorchProgramBackend(package, allow_code=True)  # made a moment ago, here
    reference, subject = f"torch {torch.__version__} (eager, float32)", f"the package on {backend.device}"
    try:
        found: Iterator[Arrays] = run_images(backend, inputs.image, inputs.superpixels)
        if info.precision == "fp32":
            checks = verify_outputs(model, spec, inputs, [found], info.num_superpixels)
        else:
            expected = (arrays(output, spec) for output in run_reference(model, spec, inputs, info.num_superpixels))
            bars = thresholds or THRESHOLDS[info.precision]
            checks = compare(zip(expected, found, strict=True), inputs, bars, spec.grouping)
    finally:
        backend.close()
    return Report(len(inputs), reference, subject, checks)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that the compiler's packages log about tools that they do not need here."""
    import logging

    names = ("torch.utils.cpp_extension", "torch._inductor")
    loggers: list[Any] = [logging.getLogger(name) for name in names]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)
