"""TensorRT engines: built from an .onnx file of this package, measured against it, written with their record."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cast_sdk.arguments import as_path
from cast_sdk.errors import ExportError
from cast_sdk.export.verification.photos import find_images
from cast_sdk.export.verification.quality import assignment_solver
from cast_sdk.export.verification.report import Report, refuse_shortfall
from cast_sdk.runtime.engine.build import build, check_options
from cast_sdk.runtime.engine.cuda import find_gpu
from cast_sdk.runtime.engine.record import EngineInfo, check_device, find_sidecar, sidecar_path, write_sidecar
from cast_sdk.runtime.engine.request import BuildRequest
from cast_sdk.system.files import check_replaceable, check_writable

__all__ = ["EngineInfo", "build_engine"]


def build_engine(
    onnx_path: str | os.PathLike[str],
    engine_path: str | os.PathLike[str],
    *,
    flavor: str = "auto",
    precision: str | None = None,
    targets: Sequence[str] = ("current",),
    batch: int | None = None,
    workspace_mb: int | None = None,
    version_compatible: bool = False,
    hardware_compatible: bool = False,
    timing_cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
    verify: bool = True,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
) -> EngineInfo:
    """Build an engine.

    The plan is written to `engine_path` and its record to `<engine_path>.json`; both appear only when everything went
    well. Needs neither torch nor onnx.

    Args:
        onnx_path: written by `export_onnx` (or `cast-export`).
        engine_path: ends in .engine or .plan.
        flavor: "tensorrt" (Jetson and other GPUs; builds on the GPU that will run it), "rtx" (RTX cards; builds without
            a GPU), or "auto": tensorrt where it is installed and has a GPU, else rtx.
        precision: "fp32", "fp16" or "int8": what the graph must have. None takes what it has. The precision of the
            built engine is read back from its layers in any case, and another one is an error.
        targets: "current", or compute capabilities such as "sm86" for the flavour rtx. "current" without a GPU means
            every card that rtx supports from Ampere on, which makes the engine hardly larger.
        batch: for graphs with a dynamic batch: the number of images per call of the engine (default 1).
        workspace_mb: limit of the builder's scratch memory; on a Jetson half of the free memory by default.
        version_compatible: later versions of TensorRT may load it (flavour tensorrt; the loader must allow host code).
        hardware_compatible: other GPUs from Ampere on may load it (flavour tensorrt, not on Jetson; slower).
        timing_cache: file of measured kernel times (flavour tensorrt), read and extended: rebuilding is faster.
        progress: show a bar on stderr.
        verify: run the engine in a fresh process beside ONNX Runtime on real images, where there is a GPU for it, and
            fail on a shortfall. The record says what was measured, or why it was not run.
        images: files or folders for that; default: the photographs that come with the package.

    Raises:
        InputError, ArtifactError: for a request that cannot be served or an .onnx that is not ours.
        MissingDependencyError: when the flavour's package or GPU is not there; names the command for the target device.
        ExportError: when TensorRT refuses the graph (with every node it names), when the engine has another precision,
            or when it does not agree with the graph.

    Example:
        >>> build_engine("cast_s.onnx", "cast_s.engine", targets=("sm86", "sm89")).precision  # doctest: +SKIP
        'fp16'
    """
    request = BuildRequest(
        onnx=as_path(onnx_path, "onnx_path"),
        engine=as_path(engine_path, "engine_path"),
        flavor=flavor,
        precision=precision,
        targets=(targets,) if isinstance(targets, str) else tuple(targets),
        batch=batch,
        workspace_mb=workspace_mb,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        timing_cache=Path(timing_cache) if timing_cache is not None else None,
        progress=progress,
    )
    return build_verified(request, verify=verify, images=images)


def build_verified(
    request: BuildRequest,
    *,
    verify: bool = True,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
) -> EngineInfo:
    """Build what is asked for, measure it and write it; see `build_engine`."""
    target = request.engine
    check_build(request)
    if verify and find_gpu() is not None:
        assignment_solver()  # found missing before the build, not after it
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        draft = Path(folder) / target.name
        record = build(dataclasses.replace(request, engine=draft))
        parity = measure(draft, request.onnx, record, images) if verify else _not_run("verification was switched off")
        if parity["ran"]:
            refuse_shortfall(
                Report.from_dict(parity),
                "The engine does not agree with the graph it was built from.",
                "nothing was written; try another version of TensorRT, or --precision fp32",
            )
        record = dataclasses.replace(record, parity=parity)
        write_sidecar(draft, record)
        draft.replace(target)
        sidecar_path(draft).replace(sidecar_path(target))
    return record


def check_build(request: BuildRequest) -> None:
    """What can be refused before there is an .onnx file.

    Raises:
        InputError: for options that do not fit.
        ExportError: when the engine cannot be written, or a file stands there that this package did not write.
    """
    check_options(request)
    check_writable(request.engine)
    check_replaceable(request.engine, find_sidecar)


def measure(
    engine: Path,
    onnx: Path,
    record: EngineInfo,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
) -> dict[str, Any]:
    """Parity of an engine with its graph on real images, measured in a fresh process; or why it was not run.

    A fresh process, because only that shows that the file can be loaded, and because a crash there is a result here.

    Raises:
        ExportError: when that process fails.
    """
    gpu = find_gpu()
    if gpu is None:
        return _not_run("this machine has no NVIDIA GPU")
    if record.flavor == "rtx" and gpu.target not in record.targets:
        return _not_run(f"this machine's {gpu.name} ({gpu.target}) is none of its targets")
    check_device(engine, record, gpu)
    files = [os.fspath(path) for path in find_images(images)]
    command = [sys.executable, "-m", "cast_sdk.export.verification.engine_parity", os.fspath(engine), os.fspath(onnx)]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ExportError(
            "The engine could not be run in a fresh process.",
            found=f"exit code {done.returncode}: " + "\n    ".join(done.stderr.strip().splitlines()[-8:]),
            remedy="exit code 137 or -9 means too little memory; otherwise report it with this text",
        )
    parity: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return parity


def _not_run(reason: str) -> dict[str, Any]:
    return {"ran": False, "reason": reason}
