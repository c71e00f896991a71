"""TensorRT: runs engines on an NVIDIA GPU, without torch. Both flavours."""

from __future__ import annotations

import dataclasses
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ArtifactError, EngineError, InputError
from cast_sdk.runtime.backends.base import check_batch
from cast_sdk.runtime.backends.forking import StaysBehind, watch
from cast_sdk.runtime.backends.ports import Port, expected_inputs, expected_outputs, fits
from cast_sdk.runtime.engine.api import Log, TensorRT, load_tensorrt
from cast_sdk.runtime.engine.cache import cached_engine, kernel_cache_file
from cast_sdk.runtime.engine.cuda import Cuda, Gpu, open_cuda
from cast_sdk.runtime.engine.execution import Execution
from cast_sdk.runtime.engine.record import EngineInfo, check_device, check_package, read_record
from cast_sdk.spec import ModelSpec


class TensorRTBackend(StaysBehind):
    """An `.engine`, or an `.onnx` that is built into one on first use. Thread-safe: runs come one after another.

    Before the plan is loaded its record is compared with the file, the installed TensorRT and the GPU, so that what
    does not fit is named. Buffers are allocated here once, and the engine is run before the constructor returns, so
    that the first frame is as fast as the others. See `Backend`.

    Args:
        path: `.engine` or `.plan` with its record `<name>.engine.json` beside it; or an `.onnx` of this package: the
            engine is then kept in the user's cache folder and reused for the same file, versions and GPU.
        device_id: index of the GPU.
        cuda_graph: None: replay a CUDA graph where capturing works; True: insist; False: never.
        allow_host_code: load version-compatible plans. They carry executable code for the host: allow it only for
            engines you trust.
        flavor: for `.onnx`: "tensorrt", "rtx" or "auto".
        progress: for `.onnx`: show the build.

    Attributes:
        record: what is known about the engine.
        gpu: the GPU it runs on.

    Raises:
        ArtifactError: record missing or edited, plan damaged or foreign, built for another version, GPU or system.
        MissingDependencyError: no TensorRT of that flavour, no CUDA runtime, or no GPU.
        EngineError: TensorRT refuses the plan or the run; holds the last lines of its log.
    """

    engine_name = "TensorRT"
    native = ("_execution",)

    device = "cuda"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device_id: int = 0,
        cuda_graph: bool | None = None,
        allow_host_code: bool = False,
        flavor: str = "auto",
        progress: bool = True,
    ) -> None:
        file = Path(path)
        self._execution: Execution | None = None
        self._lock = threading.Lock()
        self._device_id = device_id
        if file.suffix.lower() == ".onnx":
            file = cached_engine(file, device_id=device_id, flavor=flavor, progress=progress)
        self.record = read_record(file)
        self.spec, self.info = self.record.spec, self.record.info
        trt = load_tensorrt(self.record.flavor, lean=True)
        check_package(file, self.record, trt)
        if self.record.version_compatible and not allow_host_code:
            raise InputError(
                f"{file.name} was built with --version-compatible: it carries code that would run on this computer.",
                remedy="pass allow_host_code=True for engines you trust, or build it without that option",
            )
        self._cuda: Cuda = open_cuda()
        self.gpu = self._select_gpu(device_id)
        check_device(file, self.record, self.gpu)
        log = Log(trt)
        engine = load_plan(trt, log, file, self.record)
        self._execution = Execution(
            trt,
            self._cuda,
            engine,
            log,
            cuda_graph=cuda_graph,
            runtime_cache=kernel_cache_file(self.record, self.gpu) if trt.flavor == "rtx" else None,
        )
        watch(self)
        try:
            check_tensors(self._execution, self.spec, self.info)
        except ArtifactError:
            self.close()
            raise

    def _select_gpu(self, index: int) -> Gpu:
        count = self._cuda.device_count()
        if not 0 <= index < count:
            raise InputError(f"There is no GPU {index} in this machine.", remedy=f"choose 0..{count - 1}")
        self._cuda.set_device(index)
        return self._cuda.gpu(index)

    @property
    def timing(self) -> dict[str, float]:
        """Milliseconds of the last run: "upload", "compute", "download", "gpu" by the GPU's clock; "wall"."""
        return dict(self._execution.timing) if self._execution else {}

    @property
    def uses_graph(self) -> bool:
        """Whether runs replay a CUDA graph."""
        return self._execution is not None and self._execution.uses_graph

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> dict[str, np.ndarray]:
        check_batch(self.info, image, superpixels)
        with self._lock:
            self.check_process()
            if self._execution is None:
                raise InputError("This backend is closed.", remedy="open the model again")
            self._cuda.set_device(self._device_id)  # a setting of the calling thread
            return self._execution.run({"image": image, "superpixels": superpixels})

    def close(self) -> None:
        with self._lock:
            if self._execution is not None:
                self._execution.close()
                self._execution = None


def load_plan(trt: TensorRT, log: Log, file: Path, record: EngineInfo) -> Any:
    """Deserialise a plan that passed the checks.

    Raises:
        EngineError: with TensorRT's own words and the likely causes.
    """
    runtime = trt.start("Runtime", log)
    runtime.engine_host_code_allowed = record.version_compatible
    plan = file.read_bytes()
    if hasattr(runtime, "get_engine_validity"):  # TensorRT-RTX
        _check_validity(trt, runtime, plan, file, record)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{trt.name} cannot load {file.name}.",
            found=log.tail(),
            remedy="likely causes, in this order: no driver or an older one than this TensorRT needs; too little GPU "
            f"memory; another TensorRT than {trt.location} on the library path; then rebuild: {record.rebuild(file)}",
        )
    return engine


def _check_validity(trt: TensorRT, runtime: Any, plan: bytes, file: Path, record: EngineInfo) -> None:
    validity, diagnostics = runtime.get_engine_validity(plan)
    kinds = getattr(trt.module, "EngineInvalidityDiagnostics", None)
    members = getattr(kinds, "__members__", {})
    names = [name.lower().replace("_", " ") for name, kind in members.items() if int(diagnostics) & int(kind)]
    if validity == trt.member("EngineValidity", "SUBOPTIMAL"):
        reason = ", ".join(names) or "no reason given"
        warnings.warn(f"{file.name} will be slower than an engine built here: {reason}", RuntimeWarning, stacklevel=4)
    elif validity == trt.member("EngineValidity", "INVALID") and names:
        raise ArtifactError(
            f"{file.name} is not valid for this machine, says {trt.name}.",
            found=", ".join(names),
            remedy=f"rebuild it: {record.rebuild(file)}",
        )


def check_tensors(execution: Execution, spec: ModelSpec, info: ExportInfo) -> None:
    """Check that the engine has the inputs and outputs that its record describes.

    Raises:
        ArtifactError: for other names, shapes or types.
    """
    one = dataclasses.replace(info, batch=info.batch or 1)
    expected = expected_inputs(spec, one) | expected_outputs(spec, one)
    for name, shape in execution.shapes.items():
        found: Port = (execution.dtypes[name], tuple(shape))
        known = name in expected or name in info.outputs
        if not known or not fits(found, expected.get(name, found)):
            raise ArtifactError(
                "The engine does not have the inputs and outputs of its record.",
                found=f"{name}: {execution.dtypes[name]} of shape {list(shape)}",
                remedy="build it again with cast-export",
            )
    missing = set(info.outputs) - set(execution.shapes)
    if missing:
        raise ArtifactError(
            f"The engine lacks outputs of its record: {', '.join(sorted(missing))}.",
            remedy="build it again with cast-export",
        )
