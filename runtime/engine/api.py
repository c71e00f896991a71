"""What this project knows about TensorRT's versions and its two flavours. Nothing else asks for a version.

`tensorrt` (10.3 on JetPack 6.1 and 6.2, to 11.x) needs a GPU to build and to run. `tensorrt_rtx` (RTX cards in
x86-64 machines) builds without a GPU and compiles for the card when an engine is loaded. Networks are strongly typed in
both: the precision is written in the graph, and the flags that TensorRT 11 removed (FP16, INT8, ...) are never used.
"""

from __future__ import annotations

import importlib
import importlib.util
import platform
import re
import sys
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cast_sdk.errors import EngineError, InputError, MissingDependencyError
from cast_sdk.system.installing import pip_install

Flavor = Literal["tensorrt", "rtx"]
FLAVORS: tuple[Flavor, ...] = ("tensorrt", "rtx")
PACKAGES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx", "lean": "tensorrt_lean"}
MIN_VERSIONS = {"tensorrt": (10, 3), "rtx": (1, 4)}
# The first version that builds convolutions in INT8 (1.4 to 1.6 fail on them, 1.7.1 does not).
INT8_CONVOLUTIONS = {"tensorrt": (10, 3), "rtx": (1, 7)}
# Our name of each element type -> (TensorRT's member of DataType, NumPy's name); BF16, FP8 and smaller have none.
DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class TensorRT:
    """An imported TensorRT package.

    Attributes:
        module: `tensorrt`, `tensorrt_rtx` or `tensorrt_lean`.
        flavor: "tensorrt" or "rtx".
        version: as the package says it, e.g. "10.3.0" or "1.7.1.116".
        lean: the lean runtime: it loads version-compatible plans and cannot build.
    """

    module: Any
    flavor: Flavor
    version: str
    lean: bool = False

    @property
    def name(self) -> str:
        return f"{'TensorRT-RTX' if self.flavor == 'rtx' else 'TensorRT'} {self.version}"

    @property
    def location(self) -> str:
        """Folder of the package: two installations on one machine are a common cause of version errors."""
        return str(Path(getattr(self.module, "__file__", None) or ".").parent)

    def member(self, enum: str, name: str) -> Any:
        """`module.enum.name`, or None where this version does not have it."""
        return getattr(getattr(self.module, enum, None), name, None)

    def start(self, kind: str, log: Log) -> Any:
        """A `Builder` or `Runtime`.

        Raises:
            EngineError: when TensorRT cannot initialise CUDA.
        """
        try:
            return getattr(self.module, kind)(log.logger)
        except TypeError as error:  # what pybind11 makes of a null pointer
            raise EngineError(
                f"{self.name} cannot start.", found=log.tail(), remedy="check the GPU and its driver with cast-doctor"
            ) from error

    def network_flags(self) -> int:
        """Creation flags of a strongly typed network. EXPLICIT_BATCH is gone in 11 and the default in 10."""
        strongly_typed = self.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
        return 0 if strongly_typed is None else 1 << int(strongly_typed)

    def compute_capabilities(self) -> dict[str, Any]:
        """Targets an engine can be built for without their GPU, as "sm86" -> enum member; empty for `tensorrt`."""
        enum = getattr(self.module, "ComputeCapability", None)
        members = getattr(enum, "__members__", {})
        return {name.lower(): value for name, value in members.items() if name.startswith("SM")}

    def numpy_name(self, dtype: Any) -> str:
        """NumPy's name of a DataType. `trt.nptype` needs names that NumPy removed, so it is not used."""
        for member, name in DTYPES.items():
            if dtype == self.member("DataType", member):
                return name
        raise EngineError(
            f"An input or output has the element type {dtype}, which NumPy lacks.",
            remedy="export the model again; its inputs are uint8 and int32 and its outputs float32 and int32",
        )


def version_tuple(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "10.14.1.48.post1" -> (10, 14, 1, 48)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def is_jetson(release: Path = Path("/etc/nv_tegra_release")) -> bool:
    """Whether this is a Jetson. A container lacks the file that names the release and shows the host's kernel."""
    return release.is_file() or "tegra" in platform.release()


def current_platform() -> str:
    """For example "linux-x86_64"; plans of the `tensorrt` flavour belong to one."""
    return f"{platform.system().lower()}-{platform.machine().lower().replace('amd64', 'x86_64')}"


def installed_flavors() -> list[Flavor]:
    """Flavours whose package is installed here, without importing it."""
    return [flavor for flavor in FLAVORS if importlib.util.find_spec(PACKAGES[flavor]) is not None]


def load_tensorrt(flavor: Flavor, *, lean: bool = False) -> TensorRT:
    """Import a flavour.

    Args:
        flavor: "tensorrt" or "rtx".
        lean: take the lean runtime of `tensorrt` where the full package is not installed.

    Raises:
        InputError: for an unknown flavour.
        MissingDependencyError: not installed, or too old.
    """
    if flavor not in FLAVORS:
        raise InputError(f"There is no TensorRT flavour {flavor!r}.", remedy=f"choose one of {', '.join(FLAVORS)}")
    use_lean = lean and flavor == "tensorrt" and importlib.util.find_spec("tensorrt") is None
    package = PACKAGES["lean" if use_lean else flavor]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"The package {package} cannot be imported.", found=str(error), remedy=install_hint(flavor)
        ) from error
    version = str(getattr(module, "__version__", "unknown"))
    if version_tuple(version) < MIN_VERSIONS[flavor]:
        oldest = ".".join(map(str, MIN_VERSIONS[flavor]))
        raise MissingDependencyError(
            f"{package} {version} is too old: {oldest} is the first with everything that is used here.",
            remedy="JetPack 6.1 or newer has it" if is_jetson() else f"pip install -U '{package}>={oldest}'",
        )
    return TensorRT(module, flavor, version, use_lean)


def install_hint(flavor: Flavor) -> str:
    """How to install a flavour on this machine."""
    if flavor == "rtx":
        if is_jetson() or platform.machine().lower() not in ("x86_64", "amd64"):
            return "TensorRT-RTX exists for x86-64 only; use the flavour tensorrt here"
        return pip_install("trt-rtx")
    outside = next(iter(sorted(Path("/usr/lib").glob("python3*/dist-packages/tensorrt"))), None)
    if outside is not None and sys.prefix != sys.base_prefix:
        return (
            f"it is in {outside}, outside this virtual environment: "
            "python3 -m venv --system-site-packages --clear .venv, then install cast-sdk again"
        )
    if is_jetson():
        return "sudo apt install tensorrt python3-libnvinfer (part of JetPack)"
    return pip_install("trt")


class Log:
    """TensorRT's messages: the last warnings and errors for our own error texts, and the layer list of a build.

    TensorRT reports the reason of a failure only through its logger, and returns None or False. The layer list that the
    builder logs at its lowest severity is the one description of a built engine that needs no GPU.
    """

    def __init__(self, api: TensorRT, size: int = 40) -> None:
        self._lines: deque[str] = deque(maxlen=size)
        self._lock = threading.Lock()
        self.layers = ""
        base = api.module.ILogger
        worst = {getattr(base, name) for name in ("INTERNAL_ERROR", "ERROR", "WARNING") if hasattr(base, name)}
        log = self

        class Logger(base):  # type: ignore[misc,valid-type]
            def __init__(self) -> None:
                base.__init__(self)  # pybind11 wants the base named

            def log(self, severity: Any, message: str) -> None:
                if message.startswith(("Layers:", "Engine Layer Information:")):
                    log.layers = message
                elif severity in worst:
                    with log._lock:
                        log._lines.append(message.strip())

        self.logger: Any = Logger()

    def clear(self) -> None:
        with self._lock:
            self._lines.clear()

    def tail(self, count: int = 8) -> str:
        """The last messages, one per line; "(TensorRT logged nothing)" when there are none."""
        with self._lock:
            lines = list(self._lines)[-count:]
        return "\n    ".join(lines) if lines else "(TensorRT logged nothing)"
