"""ONNX Runtime: the default for .onnx, on the CPU or through its CUDA provider."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any

import numpy as np

from cast_sdk.artifact import from_metadata
from cast_sdk.errors import ArtifactError, InputError, MissingDependencyError
from cast_sdk.runtime.backends.base import check_batch
from cast_sdk.runtime.backends.feeding import Feeder, matrix_shapes
from cast_sdk.runtime.backends.forking import keep_alive, watch
from cast_sdk.runtime.backends.ports import Port, check_ports
from cast_sdk.runtime.backends.spinning import BRIEFLY, knows_durations, yielding_threads
from cast_sdk.system.processor import int8_saturates

_CUDA = "CUDAExecutionProvider"


class OnnxRuntimeBackend:
    """A `.onnx` file in an ONNX Runtime session. Thread-safe. See `Backend`.

    Args:
        path: the file.
        device: "auto" takes CUDA when this onnxruntime has it and it starts; "cuda" insists on it.
        threads: threads of one run on the CPU.
        spinning: True lets idle threads spin to the end of a run, False never; None for a moment, where the system lets
            them give way to other work. Between runs they sleep either way.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, device: str = "auto", threads: int = 1, spinning: bool | None = None
    ) -> None:
        self._path, self._asked, self._threads, self._spinning = os.fspath(path), device, threads, spinning
        self._lock = threading.Lock()
        self._forgotten = False
        self._session: Any = self._open()
        self.spec, self.info = from_metadata(self._session.get_modelmeta().custom_metadata_map, path)
        if self.info.target == "cpu" and _CUDA in self._session.get_providers():
            if device == "cuda":
                raise InputError(
                    f"{self._path} was made for processors and does not run on CUDA.",
                    found="its inputs are matrices that the runtime computes on a CPU (target cpu)",
                    remedy="use device='cpu', or export it without --target cpu",
                )
            self._asked = "cpu"
            self._session = self._open()
        self.device = "cuda" if _CUDA in self._session.get_providers() else "cpu"
        inputs = {item.name: _port(item) for item in self._session.get_inputs()}
        outputs = {item.name: _port(item) for item in self._session.get_outputs()}
        check_ports(path, self.spec, self.info, inputs, outputs)
        self._feeder = Feeder(inputs, matrix_shapes(self.spec, self.info))
        self._outputs = [item.name for item in self._session.get_outputs()]
        watch(self)

    def _open(self) -> Any:
        """A new session."""
        device = self._asked
        ort = import_onnxruntime()
        providers = ["CPUExecutionProvider"]
        if device != "cpu" and _CUDA in ort.get_available_providers():
            providers.insert(0, _CUDA)
        elif device == "cuda":
            raise MissingDependencyError(
                "This ONNX Runtime has no CUDA provider.",
                found=f"onnxruntime {ort.__version__} with {', '.join(ort.get_available_providers())}",
                remedy="pip uninstall -y onnxruntime && pip install onnxruntime-gpu (on a Jetson: build an engine)",
            )
        on_cpu = len(providers) == 1  # CUDA starts threads of its own, which stay as they are
        wanted = on_cpu and self._spinning is None and self._threads > 1 and knows_durations(ort.__version__)
        with yielding_threads(wanted) as briefly:
            options = session_options(ort, self._threads, bool(self._spinning), briefly)
            try:
                session = ort.InferenceSession(self._path, options, providers=providers)
            except Exception as error:  # ONNX Runtime raises its own unrelated classes
                raise ArtifactError(
                    f"ONNX Runtime cannot load {self._path}.",
                    found=str(error).splitlines()[0],
                    remedy="check that the file is a complete .onnx; export it again, or upgrade onnxruntime",
                ) from error
        if _CUDA not in session.get_providers() and len(providers) > 1:
            found = "the CUDA provider did not start (driver, CUDA or cuDNN libraries)"
            if device == "cuda":
                raise MissingDependencyError(
                    "ONNX Runtime cannot use the GPU.", found=found, remedy="cast-doctor names what is missing"
                )
            warnings.warn(f"Running on the CPU: {found}. Run cast-doctor.", RuntimeWarning, stacklevel=5)
        return session

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> dict[str, np.ndarray]:
        check_batch(self.info, image, superpixels)
        if self._forgotten:
            with self._lock:
                if self._forgotten:
                    self._session, self._forgotten = self._open(), False
        session = self._session
        if session is None:
            raise InputError("This backend is closed.", remedy="open the model again")
        with self._feeder.feed(image, superpixels) as feed:
            values = session.run(None, feed)
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        self._session, self._forgotten = None, False
        self._feeder.clear()

    def forget(self) -> None:
        """In a forked child: the session is left alone; the next run opens another one."""
        if self._session is not None:
            keep_alive(self._session)
            self._session, self._forgotten, self._lock = None, True, threading.Lock()


def _port(item: Any) -> Port:
    """Dtype and shape of an input or output, such as "tensor(float)" and [1, "batch"], as NumPy names them."""
    name = item.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(name, name)
    return dtype, tuple(length if isinstance(length, int) else None for length in item.shape)


def session_options(ort: Any, threads: int, spinning: bool = False, briefly: bool = False) -> Any:
    """Options of every ONNX Runtime session of this package; 0 threads: as many as there are cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning or briefly else "0")
    if briefly:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(BRIEFLY))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Without VNNI the fast INT8 products add pairs in 16 bits, which saturate and make the result wrong without a word.
    # This chooses slower, exact products. With VNNI results are exact anyway and it would cost two fifths of the speed.
    if int8_saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    return options


def import_onnxruntime() -> Any:
    """The onnxruntime module, with its telemetry off unless the user has set `ORT_DISABLE_TELEMETRY`.

    From 1.29 on its wheel for Linux keeps a device id and a store of events in the user's cache and looks up a host to
    send them to, whenever a session is made.

    Raises:
        MissingDependencyError: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "ONNX Runtime, which runs .onnx files, cannot be imported.",
            found=str(error),
            remedy="pip install onnxruntime",
        ) from error
    return onnxruntime
