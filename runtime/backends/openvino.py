"""OpenVINO: a faster CPU path for .onnx on Intel and AMD machines."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from cast_sdk.artifact import INFO_KEY, SPEC_KEY, from_metadata
from cast_sdk.errors import ArtifactError, InputError, MissingDependencyError
from cast_sdk.runtime.backends.base import check_batch
from cast_sdk.runtime.backends.feeding import Feeder, matrix_shapes
from cast_sdk.runtime.backends.forking import StaysBehind, watch
from cast_sdk.runtime.backends.ports import Port, check_ports
from cast_sdk.system.installing import pip_install
from cast_sdk.system.processor import int8_saturates

_HINTS = {"fp32": "f32", "bf16": "bf16"}  # OpenVINO's own names
PRECISIONS = tuple(_HINTS)


class OpenVINOBackend(StaysBehind):
    """A `.onnx` file compiled by OpenVINO's CPU plugin. See `Backend`.

    Args:
        path: the file.
        device: "auto" or "cpu".
        threads: threads of one run.
        precision: "fp32", or "bf16" for speed on processors that compute with bfloat16: embedding and class move
            little, but segment labels change on many images (numbers in docs/benchmarks.md).
    """

    engine_name = "OpenVINO"
    native = ("_request", "_native")

    device = "cpu"

    def __init__(
        self, path: str | os.PathLike[str], *, device: str = "auto", threads: int = 1, precision: str = "fp32"
    ) -> None:
        if device == "cuda":
            raise InputError(
                "The openvino backend cannot run on CUDA.", remedy="use backend='onnxruntime' or device='cpu'"
            )
        if precision not in PRECISIONS:
            raise InputError(
                f"OpenVINO has no precision {precision!r}.", remedy=f"choose one of {', '.join(PRECISIONS)}"
            )
        openvino = import_openvino()
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise MissingDependencyError(
                "This processor lacks the bfloat16 instructions (AVX512_BF16 or AMX) that precision='bf16' needs.",
                found=str(core.get_property("CPU", "FULL_DEVICE_NAME")),
                remedy="use precision='fp32'",
            )
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            model = core.read_model(os.fspath(path))
            keys = [key for key in (SPEC_KEY, INFO_KEY) if model.has_rt_info(["framework", key])]
            metadata = {key: str(model.get_rt_info(["framework", key]).astype(str)) for key in keys}
            self.spec, self.info = from_metadata(metadata, path)
            inputs, outputs = (
                {_name(port, self.info.outputs): _port(port) for port in ports}
                for ports in (model.inputs, model.outputs)
            )
            check_ports(path, self.spec, self.info, inputs, outputs)
            if self.info.precision == "int8" and int8_saturates():
                raise InputError(
                    "OpenVINO would give wrong results for this INT8 graph: sums saturate on x86 without VNNI.",
                    found=str(core.get_property("CPU", "FULL_DEVICE_NAME")),
                    remedy="use backend='onnxruntime', which is exact everywhere, or the float32 file",
                )
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise ArtifactError(
                f"OpenVINO cannot load {os.fspath(path)}.",
                found=str(error).splitlines()[-1].strip(),
                remedy="check that the file is a complete .onnx, or use backend='onnxruntime'",
            ) from error
        self._native: Any = (core, model, compiled)
        self._feeder = Feeder(inputs, matrix_shapes(self.spec, self.info))
        self._outputs = [_name(port, self.info.outputs) for port in compiled.outputs]
        self._request: Any = compiled.create_infer_request()
        self._lock = threading.Lock()  # one request holds one set of buffers
        watch(self)

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> dict[str, np.ndarray]:
        check_batch(self.info, image, superpixels)
        with self._lock:
            self.check_process()
            if self._request is None:
                raise InputError("This backend is closed.", remedy="open the model again")
            with self._feeder.feed(image, superpixels) as feed:
                values = self._request.infer(feed, share_inputs=True)
                return {name: np.array(values[index]) for index, name in enumerate(self._outputs)}

    def close(self) -> None:
        with self._lock:
            self.drop()
            self._feeder.clear()


def import_openvino() -> Any:
    """The openvino module, without the telemetry that it sends when it is imported.

    Its package `openvino_telemetry` sends an event to a host of Google unless somebody has declined that. Without that
    package it is silent, so it is told that there is none. Whoever imports openvino first decides otherwise.

    Raises:
        MissingDependencyError: it is not installed.
    """
    absent = "openvino_telemetry" not in sys.modules
    if absent:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError(
            "OpenVINO, which backend='openvino' needs, cannot be imported.",
            found=str(error),
            remedy=pip_install("openvino"),
        ) from error
    finally:
        if absent:
            del sys.modules["openvino_telemetry"]
    return openvino


def _name(port: Any, described: Sequence[str]) -> str:
    """The described name of a port, which also answers to the names of tensors that were fused into it."""
    names = sorted(port.names)
    return next((name for name in names if name in described), names[0] if names else "")


def _port(port: Any) -> Port:
    lengths = port.partial_shape
    return port.element_type.to_dtype().name, tuple(one.get_length() if one.is_static else None for one in lengths)
