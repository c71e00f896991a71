"""Look at an installation: what is there, what is missing, and the command that puts it right."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from cast_sdk.system.installing import install_again, pip_install, requirements, unmet
from cast_sdk.system.opencv import wheels as opencv_wheels

Status = Literal["ok", "info", "warning", "problem"]

EXTRAS = {
    "bulk": "cast-bulk",
    "ray": "cast-bulk --engine ray",
    "serve": "cast-serve and the camera's page",
    "hub": "weights by name and hf:// address",
}
ORT_WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    `status`: "ok"; "info": optional and not there; "warning": works, but will cause trouble; "problem": something that
    every user needs does not work. `remedy` is a command or a step, for all but "ok".
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Run every check. None of them changes anything; torch is not imported."""
    checks: Sequence[Callable[[], Iterable[Finding]]] = (
        check_system,
        check_telemetry,
        lambda: check_opencv_wheels(opencv_wheels()),
        check_opencv,
        check_superpixels,
        lambda: check_engines(installed(ORT_WHEELS)),
        check_tensorrt,
        check_gpu,
        check_cuda,
        check_export,
        check_extras,
        check_bundled_model,
    )
    return [finding for check in checks for finding in check()]


def installed(names: Iterable[str]) -> dict[str, str]:
    """Versions of those distributions that this environment has."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def check_system() -> Iterable[Finding]:
    import cast_sdk
    from cast_sdk.runtime.backends.base import default_threads

    yield Finding("cast-sdk", "ok", cast_sdk.__version__)
    version = platform.python_version()
    supported = (3, 10) <= sys.version_info[:2] <= (3, 14)
    yield Finding(
        "Python",
        "ok" if supported else "warning",
        f"{version}, {platform.system()} {platform.machine()}",
        "" if supported else "cast-sdk is tested with Python 3.10 to 3.14: create an environment with one of them",
    )
    yield Finding("processor", "ok", f"{os.cpu_count()} cores, {default_threads()} threads by default")
    yield Finding("NumPy", "ok", metadata.version("numpy"))


def check_telemetry() -> Iterable[Finding]:
    """Whether ONNX Runtime may send usage events."""
    chosen = os.environ.get("ORT_DISABLE_TELEMETRY", "1")
    if chosen in ("", "0"):
        yield Finding(
            "telemetry",
            "info",
            f"ORT_DISABLE_TELEMETRY={chosen}: ONNX Runtime may send events",
            "unset it to forbid that",
        )
    else:
        yield Finding("telemetry", "ok", "off: cast-sdk sends nothing and keeps ONNX Runtime from sending")


def check_opencv_wheels(wheels: dict[str, str]) -> Iterable[Finding]:
    """OpenCV's four wheels install the same files: two of them damage each other."""
    from cast_sdk.system.opencv import repair

    if len(wheels) > 1:
        yield Finding(
            "OpenCV wheels",
            "warning",
            "several that overwrite each other: " + ", ".join(f"{name} {version}" for name, version in wheels.items()),
            f"{repair(wheels)}; then cast-sdk as docs/install.md says, so that pip does not bring another",
        )


def check_opencv() -> Iterable[Finding]:
    from cast_sdk.errors import MissingDependencyError
    from cast_sdk.system.opencv import import_cv2

    try:
        cv2 = import_cv2()
    except MissingDependencyError as error:
        yield Finding("OpenCV", "problem", error.found or "not installed", error.remedy or "")
        return
    yield Finding("OpenCV", "ok", f"{cv2.__version__} in {Path(cv2.__file__).parent}")
    build = cv2.getBuildInformation()
    gstreamer = re.search(r"GStreamer:\s+YES", build) is not None
    if gstreamer:
        yield Finding("OpenCV with GStreamer", "ok", "yes: csi:// cameras work")
    elif importlib.util.find_spec("gi") is not None:
        yield Finding("OpenCV with GStreamer", "ok", "no, but PyGObject is there: csi:// cameras work through it")
    else:
        yield Finding(
            "OpenCV with GStreamer",
            "info",
            "no (the wheels never have it); needed for csi:// cameras only",
            "sudo apt install python3-gi gir1.2-gst-plugins-base-1.0 and an environment with --system-site-packages",
        )


def check_superpixels() -> Iterable[Finding]:
    from cast_sdk import superpixels
    from cast_sdk.errors import MissingDependencyError

    try:
        kernel = superpixels.backend()
    except MissingDependencyError as error:
        yield Finding("superpixels", "problem", str(error.found), str(error.remedy))
        return
    if kernel == "native":
        yield Finding("superpixels", "ok", "own SEEDS kernel")
    else:
        yield Finding(
            "superpixels",
            "warning",
            "OpenCV's SEEDS: the same labels, about three times slower",
            f"sudo apt install g++ && {install_again()}",
        )


def check_engines(ort_wheels: dict[str, str]) -> Iterable[Finding]:
    """Whatever can run a network; one of them is needed."""
    from cast_sdk.errors import MissingDependencyError
    from cast_sdk.runtime.backends.onnxruntime import import_onnxruntime

    others = installed(("openvino", "torch"))
    if len(ort_wheels) > 1:
        yield Finding(
            "ONNX Runtime wheels",
            "warning",
            "several that overwrite each other: " + ", ".join(ort_wheels),
            f"pip uninstall -y {' '.join(ort_wheels)} && pip install onnxruntime (or onnxruntime-gpu)",
        )
    try:
        ort = import_onnxruntime()
        providers = [name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()]
        yield Finding("ONNX Runtime", "ok", f"{ort.__version__} with {', '.join(providers)}")
    except MissingDependencyError as error:
        able = others or find_tensorrt() is not None
        yield Finding(
            "ONNX Runtime",
            "info" if able else "problem",
            str(error.found) + ("; .onnx files need it" if able else "; nothing here can run a network"),
            "pip install onnxruntime",
        )
    if "openvino" in others:
        yield Finding("OpenVINO", "ok", others["openvino"])
    else:
        yield Finding("OpenVINO", "info", "not installed (faster CPU path)", pip_install("openvino"))
    if "torch" in others:
        yield Finding("torch", "ok", others["torch"])
    else:
        yield Finding(
            "torch",
            "info",
            "not installed (needed to export, train and run checkpoints)",
            pip_install("export"),
        )


def check_tensorrt() -> Iterable[Finding]:
    module = find_tensorrt()
    if module is not None:
        yield Finding("TensorRT", "ok", f"{module.__name__} {module.__version__}")
        return
    outside = system_tensorrt()
    if outside:
        yield Finding(
            "TensorRT",
            "warning",
            f"in {outside}, outside this virtual environment",
            "python3 -m venv --system-site-packages --clear .venv, then install cast-sdk again",
        )
    else:
        remedy = f"{pip_install('trt')} (desktop RTX cards also: {pip_install('trt-rtx')})"
        if tegra_release():
            remedy = "sudo apt install tensorrt python3-libnvinfer (part of JetPack)"
        yield Finding("TensorRT", "info", "not installed (needed for .engine files only)", remedy)


def find_tensorrt() -> Any:
    """The tensorrt or tensorrt_rtx module, or None."""
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def system_tensorrt(root: Path = Path("/usr/lib")) -> Path | None:
    """Where the system's Python packages hold TensorRT, for a virtual environment that cannot see them."""
    return next(iter(sorted(root.glob("python3*/dist-packages/tensorrt"))), None)


def tegra_release() -> str:
    """First line of a Jetson's release file, or ''."""
    path = Path("/etc/nv_tegra_release")
    return path.read_text().splitlines()[0] if path.is_file() else ""


def check_gpu() -> Iterable[Finding]:
    if release := tegra_release():
        yield Finding("GPU", "ok", f"Jetson, {release.lstrip('# ')}")
        return
    driver = Path("/proc/driver/nvidia/version")
    if driver.is_file():
        yield Finding(
            "GPU", "ok", f"NVIDIA driver: {driver.read_text().splitlines()[0].removeprefix('NVRM version: ')}"
        )
    else:
        yield Finding(
            "GPU", "info", "no NVIDIA driver: networks run on the CPU", "install the driver if there is a GPU"
        )


def check_cuda(driver: Path = Path("/proc/driver/nvidia")) -> Iterable[Finding]:
    """Call CUDA, where there is a driver to call."""
    from cast_sdk.errors import CudaError, MissingDependencyError
    from cast_sdk.runtime.engine.cuda import open_cuda

    if not driver.is_dir() and not tegra_release():
        return
    try:
        cuda = open_cuda()
        (newest, used), gpu = cuda.versions(), cuda.gpu()
    except (MissingDependencyError, CudaError) as error:
        yield Finding("CUDA", "warning", f"{error.problem} {error.found}", str(error.remedy))
        return
    driver_version, runtime_version = (f"{number // 1000}.{number % 1000 // 10}" for number in (newest, used))
    yield Finding("CUDA", "ok", f"{gpu.name} ({gpu.target}), driver for {driver_version} and runtime {runtime_version}")
    if newest < 13000 and getattr(find_tensorrt(), "__version__", "").startswith("11."):
        yield Finding(
            "TensorRT and CUDA",
            "warning",
            f"TensorRT 11 needs a driver for CUDA 13, and this one is for {driver_version}",
            "upgrade the driver, or: pip install 'tensorrt-cu12<11'",
        )


def check_export() -> Iterable[Finding]:
    missing = [
        name for name in ("torch", "onnx", "onnxscript", "safetensors") if importlib.util.find_spec(name) is None
    ]
    if missing:
        yield Finding("export", "info", f"not installed: {', '.join(missing)}", pip_install("export"))
    else:
        yield Finding("export", "ok", f"onnx {metadata.version('onnx')}, onnxscript {metadata.version('onnxscript')}")


def check_extras() -> Iterable[Finding]:
    """What the commands for many images, services and the hub need."""
    for extra, use in EXTRAS.items():
        lacking = unmet(requirements(extra))
        if not lacking:
            yield Finding(extra, "ok", f"for {use}")
            continue
        old = [f"{one.name} {version} is older than {one.lowest}" for one, version in lacking if version]
        missing = [one.name for one, version in lacking if not version]
        found = "; ".join([*([f"not installed: {', '.join(missing)}"] if missing else []), *old])
        yield Finding(extra, "info" if missing else "warning", f"{found} (for {use})", pip_install(extra))


def check_bundled_model() -> Iterable[Finding]:
    from cast_sdk import bundled
    from cast_sdk.errors import ArtifactError

    try:
        path = bundled.path(bundled.MODEL)
    except ArtifactError as error:
        yield Finding("bundled model", "info", error.problem, error.remedy or "")
    else:
        yield Finding("bundled model", "ok", f"{path.name}, {path.stat().st_size / 1e6:.1f} MB")
