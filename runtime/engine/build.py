"""From an .onnx file to an engine and its record. Needs neither torch nor onnx, so that a Jetson can do it.

Checks come in the order of their cost: the request, the packages, the environment, then the build.
"""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ExportError, InputError, MissingDependencyError
from cast_sdk.runtime.backends.base import check_file
from cast_sdk.runtime.engine.api import (
    FLAVORS,
    INT8_CONVOLUTIONS,
    Flavor,
    Log,
    TensorRT,
    current_platform,
    install_hint,
    installed_flavors,
    is_jetson,
    load_tensorrt,
    version_tuple,
)
from cast_sdk.runtime.engine.cuda import Gpu, find_gpu, open_cuda
from cast_sdk.runtime.engine.onnx_metadata import read_description
from cast_sdk.runtime.engine.precision import Readback, check_precision, has_precision, read_layers, read_network
from cast_sdk.runtime.engine.progress import BuildProgress
from cast_sdk.runtime.engine.record import EngineInfo, write_sidecar
from cast_sdk.runtime.engine.request import BuildRequest
from cast_sdk.spec import ModelSpec
from cast_sdk.system.files import atomic_write, sha256

PRECISIONS = ("fp32", "fp16", "int8")
_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}  # of most weights
SUFFIXES = (".engine", ".plan")


def build(request: BuildRequest) -> EngineInfo:
    """Build an engine and write it with its record. The engine is not run: its `parity` says so.

    Raises:
        InputError, ArtifactError: for a request that cannot be served or an .onnx file that is not ours.
        MissingDependencyError: when the package or the GPU that the flavour needs is not there.
        ExportError: when TensorRT refuses the graph, or when the engine has another precision than asked for.
    """
    spec, info = check_request(request)
    gpu = find_gpu(request.device_id)
    if gpu is not None:
        open_cuda().set_device(gpu.index)  # builders work on the current device of the thread that makes them
    flavor = choose_flavor(request, gpu)
    try:
        trt = load_tensorrt(flavor)
    except MissingDependencyError as error:
        if flavor == "tensorrt" and gpu is None:  # installing it here would not help
            raise _needs_gpu(request, f"; {error.found}") from error
        raise
    targets = check_environment(request, trt, gpu)
    start = time.perf_counter()
    plan, readback = compile_plan(request, trt, info, targets if trt.compute_capabilities() else ())
    seconds = time.perf_counter() - start
    check_precision(info.precision, readback)
    if info.batch is None:
        info = dataclasses.replace(info, batch=request.batch or 1)
    with atomic_write(request.engine) as temporary:
        temporary.write_bytes(plan)
        record = EngineInfo(
            spec=spec,
            info=info,
            flavor=flavor,
            version=trt.version,
            targets=targets,
            gpu=gpu.name if gpu else None,
            platform=current_platform(),
            plan_sha256=sha256(temporary),
            plan_bytes=len(plan),
            onnx_sha256=sha256(request.onnx),
            onnx_name=request.onnx.name,
            readback=readback.to_dict(),
            version_compatible=request.version_compatible,
            hardware_compatible=request.hardware_compatible,
            build={"seconds": round(seconds, 2), "workspace_mb": request.workspace_mb},
            parity={"ran": False, "reason": "the engine has not been run yet"},
        )
    write_sidecar(request.engine, record)
    return record


# request --------------------------------------------------------------------------------------------------------------


def check_request(request: BuildRequest) -> tuple[ModelSpec, ExportInfo]:
    """Everything that can be refused by looking at the arguments and the file. Returns the file's description."""
    check_options(request)
    return check_graph(request)


def check_options(request: BuildRequest) -> None:
    """What can be refused before there is an .onnx file."""
    if request.flavor not in ("auto", *FLAVORS):
        raise InputError(
            f"There is no TensorRT flavour {request.flavor!r}.", remedy=f"choose one of auto, {', '.join(FLAVORS)}"
        )
    if request.precision not in (None, *PRECISIONS):
        raise InputError(
            f"There is no precision {request.precision!r}.", remedy=f"choose one of {', '.join(PRECISIONS)}"
        )
    if request.engine.suffix not in SUFFIXES:
        raise InputError(
            f"{request.engine.name} does not end in {' or '.join(SUFFIXES)}, as an engine does.",
            remedy=f"for example {request.engine.with_suffix('.engine').name}",
        )
    if request.workspace_mb is not None and request.workspace_mb < 1:
        raise InputError(
            f"A workspace of {request.workspace_mb} MB holds nothing.", remedy="give 1 MB or more, or leave it out"
        )
    if request.batch is not None and request.batch < 1:
        raise InputError(f"An engine cannot have a batch of {request.batch}.", remedy="give at least 1")
    if not request.targets:
        raise InputError("No target is named.", remedy="use 'current', or for example sm86,sm89")
    if "current" in request.targets and len(request.targets) > 1:
        raise InputError(
            f"The target 'current' cannot be combined with others: {','.join(request.targets)}.",
            remedy="name this GPU's compute capability instead, for example sm86",
        )
    if request.flavor == "rtx":
        _check_rtx_options(request)
    elif request.flavor == "tensorrt":
        _check_tensorrt_options(request)
    if not request.engine.parent.is_dir():
        raise ExportError(f"The output folder {request.engine.parent} does not exist.", remedy="create it")


def check_graph(request: BuildRequest) -> tuple[ModelSpec, ExportInfo]:
    """What can be refused by the description in the .onnx file, which is returned."""
    spec, info = read_description(check_file(request.onnx))
    if request.precision not in (None, info.precision):
        raise ExportError(
            f"{request.onnx.name} has the precision {info.precision}, not {request.precision}.",
            found="the precision is written in the graph (TensorRT 11 has no switch for it)",
            remedy=f"cast-export --ckpt CHECKPOINT --precision {request.precision} --trt",
        )
    if info.target == "cpu":
        raise ExportError(
            f"{request.onnx.name} was made for processors, and TensorRT cannot take it.",
            found="its inputs are matrices that the runtime computes on a CPU (target cpu)",
            remedy="export it without --target cpu: cast-export --ckpt CHECKPOINT --trt",
        )
    if info.target == "onnxruntime":
        raise ExportError(
            f"{request.onnx.name} was quantised for ONNX Runtime, and TensorRT cannot take it.",
            found="unsigned activations and quantised biases; TensorRT takes symmetric INT8 without such biases",
            remedy="cast-export --ckpt CHECKPOINT --precision int8 --calibrate FOLDER --trt writes the graph it takes",
        )
    if info.batch is not None and request.batch not in (None, info.batch):
        raise InputError(
            f"{request.onnx.name} has a fixed batch of {info.batch}, not {request.batch}.",
            remedy=f"export it with --batch {request.batch}, or with a dynamic batch",
        )
    return spec, info


def _check_rtx_options(request: BuildRequest) -> None:
    for option, given, remedy in (
        ("--version-compatible", request.version_compatible, "rebuild the engine after an update (seconds, no GPU)"),
        ("--hardware-compatible", request.hardware_compatible, "name the cards: --target sm86,sm89,sm120"),
        ("--timing-cache", request.timing_cache is not None, "leave it out: kernels are chosen when it is loaded"),
    ):
        if given:
            raise InputError(f"TensorRT-RTX has no {option}.", remedy=remedy)


def _check_tensorrt_options(request: BuildRequest) -> None:
    if request.targets != ("current",):
        raise InputError(
            f"The flavour tensorrt cannot build for {','.join(request.targets)}, only for the GPU in this machine.",
            remedy="build on the target device, use --hardware-compatible (Ampere and later, not on Jetson), "
            "or --flavor rtx for RTX cards",
        )


# packages -------------------------------------------------------------------------------------------------------------


def choose_flavor(request: BuildRequest, gpu: Gpu | None) -> Flavor:
    """The flavour to build with on a machine with or without a GPU.

    "auto" takes `tensorrt` where it is installed and has a GPU, else `tensorrt_rtx`, which builds without one.

    Raises:
        MissingDependencyError: when nothing is installed.
    """
    if request.flavor == "tensorrt":
        return "tensorrt"
    if request.flavor == "rtx":
        return "rtx"
    installed = installed_flavors()
    if not installed:
        raise MissingDependencyError(
            "TensorRT, which builds engines, is not installed.",
            found="neither tensorrt nor tensorrt_rtx",
            remedy=install_hint("tensorrt")
            + ("" if is_jetson() else f"; for GeForce and RTX cards, and without a GPU: {install_hint('rtx')}"),
        )
    flavor: Flavor = "tensorrt" if "tensorrt" in installed and (gpu or len(installed) == 1) else "rtx"
    if request.targets != ("current",) and "rtx" in installed:
        flavor = "rtx"  # only this one builds for another GPU
    (_check_rtx_options if flavor == "rtx" else _check_tensorrt_options)(request)
    return flavor


# environment ----------------------------------------------------------------------------------------------------------


def check_environment(request: BuildRequest, trt: TensorRT, gpu: Gpu | None) -> tuple[str, ...]:
    """Check that this machine can build the request; returns the targets as compute capabilities.

    Raises:
        InputError: for targets that this TensorRT does not know.
        MissingDependencyError: without the GPU that `tensorrt` needs.
        ExportError: for options that a Jetson refuses.
    """
    if trt.flavor == "tensorrt":
        if gpu is None:
            raise _needs_gpu(request)
        if request.hardware_compatible and is_jetson():
            raise ExportError(
                f"{gpu.name} is a Jetson, for which there are no hardware-compatible engines.",
                remedy="leave the option out",
            )
        return (gpu.target,)
    known = trt.compute_capabilities()
    if request.targets != ("current",):
        wanted = tuple(target.lower().replace("sm_", "sm").replace(".", "") for target in request.targets)
        wanted = tuple(target if target.startswith("sm") else f"sm{target}" for target in wanted)
        unknown = [target for target in wanted if target not in known]
        if unknown:
            raise InputError(
                f"{trt.name} cannot build for {', '.join(unknown)}.",
                found=f"it builds for {', '.join(known)}",
                remedy="choose from these; data-centre and Jetson GPUs need --flavor tensorrt, on the device itself",
            )
        return tuple(dict.fromkeys(wanted))
    if gpu is None:
        return tuple(name for name in known if name != "sm75")  # costs nothing; Turing only when named
    if gpu.target not in known:
        raise InputError(
            f"{trt.name} cannot build for {gpu.name} ({gpu.target}).",
            found=f"it builds for {', '.join(known)}",
            remedy="use --flavor tensorrt for this GPU, or name other targets to build for other machines",
        )
    return (gpu.target,)


def _needs_gpu(request: BuildRequest, more: str = "") -> MissingDependencyError:
    try:
        open_cuda()
        found = "no GPU"
    except MissingDependencyError as error:
        found = str(error.found)
    there = dataclasses.replace(request, flavor="tensorrt")
    return MissingDependencyError(
        "The flavour tensorrt builds on the GPU that will run the engine, and there is none here.",
        found=found + more,
        remedy=f"copy {request.onnx} to the target device and run there: {there.command()}",
    )


# build ----------------------------------------------------------------------------------------------------------------


def compile_plan(
    request: BuildRequest, trt: TensorRT, info: ExportInfo, targets: Sequence[str]
) -> tuple[bytes, Readback]:
    """The serialised engine and the precision read back from it."""
    log = Log(trt)
    builder = trt.start("Builder", log)
    network = builder.create_network(trt.network_flags())
    _parse(trt, network, log, request.onnx)
    if info.batch is None:
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            tensor.shape = (request.batch or 1, *tuple(tensor.shape)[1:])
    config = _configure(trt, builder, request, targets)
    cache = _load_timing_cache(config, request.timing_cache)
    log.clear()
    with BuildProgress(trt, enabled=request.progress) as progress:
        config.progress_monitor = progress.monitor
        memory = builder.build_serialized_network(network, config)
    progress.raise_if_interrupted()
    if memory is None:
        remedy = "out of memory: close other programs or set --workspace to fewer megabytes; "
        remedy += "otherwise report it with this text and the .onnx file"
        first = INT8_CONVOLUTIONS[trt.flavor]
        if info.precision == "int8" and version_tuple(trt.version) < first:
            oldest = ".".join(map(str, first))
            remedy = f"pip install -U '{trt.module.__name__}>={oldest}': older ones build no convolutions in INT8"
        raise ExportError(f"{trt.name} cannot build the graph.", found=log.tail(), remedy=remedy)
    if cache is not None and request.timing_cache is not None:
        with atomic_write(request.timing_cache) as temporary:
            temporary.write_bytes(bytes(cache.serialize()))
    readback = read_layers(log.layers)
    readback.expected = request.onnx.stat().st_size // _BYTES[info.precision]
    if not readback.conclusive and not has_precision(info.precision, readback):
        readback = read_network(trt, network)
        warnings.warn(
            f"{trt.name} did not list the layers of the engine in full; its precision was read from the strongly "
            "typed network",
            RuntimeWarning,
            stacklevel=2,
        )
    return bytes(memory), readback


def _parse(trt: TensorRT, network: Any, log: Log, onnx: Path) -> None:
    parser = trt.module.OnnxParser(network, log.logger)
    if parser.parse_from_file(os.fspath(onnx)):
        return
    lines = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
    raise ExportError(
        f"{trt.name} cannot read {onnx.name}.",
        found="\n    ".join(lines) or log.tail(),
        remedy="export it with cast-export, which writes only operators that TensorRT reads; "
        "custom heads must avoid the operators named here",
    )


def _describe(error: Any) -> str:
    """One parser error in a line: which node, which operator, why."""
    code = str(error.code()).rsplit(".", 1)[-1]
    reasons = [line.strip() for line in error.desc().splitlines() if line.strip() not in ("", "false")]
    # A machine without a GPU adds a CUDA error to every refusal, and the first line repeats the code.
    reasons = [line for line in reasons if "cudaError" not in line and not line.startswith("Invalid Node")]
    operator = error.node_operator() or "graph"
    return f"node {error.node()} {error.node_name()!r} ({operator}): {code} {' '.join(reasons)}".rstrip()


def _configure(trt: TensorRT, builder: Any, request: BuildRequest, targets: Sequence[str]) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.module.ProfilingVerbosity.DETAILED
    # TF32 rounds products to 10 bits: it would not be float32, and it moves labels.
    config.clear_flag(trt.module.BuilderFlag.TF32)
    workspace = request.workspace_mb
    if workspace is None and is_jetson():  # CPU and GPU share the memory, and a build that takes all of it is killed
        workspace = max(256, _available_mb() // 2)
    if workspace:
        config.set_memory_pool_limit(trt.module.MemoryPoolType.WORKSPACE, workspace << 20)
    if request.version_compatible:
        config.set_flag(trt.module.BuilderFlag.VERSION_COMPATIBLE)
    if request.hardware_compatible:
        config.hardware_compatibility_level = trt.module.HardwareCompatibilityLevel.AMPERE_PLUS
    if targets:
        known = trt.compute_capabilities()
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            if not config.set_compute_capability(known[target], index):
                raise ExportError(f"{trt.name} does not accept the target {target}.", remedy="leave it out of --target")
    return config


def _available_mb() -> int:
    """Memory that programs can still take, in megabytes, as Linux estimates it."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) // 1024


def _load_timing_cache(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        raise ExportError(
            f"TensorRT does not accept the timing cache {path}: it belongs to another GPU or version.",
            remedy=f"delete {path} or name another file",
        )
    return cache
