"""A model file to the backend that runs it: by its suffix, or as asked."""

from __future__ import annotations

import importlib
import inspect
import os
from pathlib import Path
from typing import Any

from cast_sdk.arguments import one_of, shown, whole
from cast_sdk.errors import ArtifactError, InputError
from cast_sdk.runtime.backends.base import DEVICES, Backend, check_file, default_threads

BACKENDS = ("onnxruntime", "openvino", "tensorrt", "torch")
_CLASSES = {
    "onnxruntime": ("onnxruntime", "OnnxRuntimeBackend"),
    "openvino": ("openvino", "OpenVINOBackend"),
    "tensorrt": ("tensorrt", "TensorRTBackend"),
    "torch": ("torch", "TorchBackend"),
    "torch program": ("torch_program", "TorchProgramBackend"),
}
PROGRAMS = (".ep", ".pt2")  # suffixes of torch programs
_BY_SUFFIX = {
    ".onnx": ("onnxruntime", "openvino", "tensorrt"),
    ".engine": ("tensorrt",),
    ".plan": ("tensorrt",),
    ".pth": ("torch",),
    ".pt": ("torch",),
    ".tar": ("torch",),
    ".safetensors": ("torch",),
    **dict.fromkeys(PROGRAMS, ("torch",)),
}


def open_backend(
    path: str | os.PathLike[str],
    backend: str = "auto",
    device: str = "auto",
    *,
    threads: int | None = None,
    spinning: bool | None = None,
    **options: Any,
) -> Backend:
    """Load a model file with the backend its suffix names, or with the one asked for.

    Args:
        path: `.onnx` (ONNX Runtime, or `backend="openvino"`, or `backend="tensorrt"`, which builds an engine once and
            keeps it), `.engine` (TensorRT), `.pth`, `.pth.tar`, `.pt` or `.safetensors` (torch), `.ep` or `.pt2` (a
            compiled torch program).
        backend: "auto" or one of `BACKENDS`.
        device: "auto" (CUDA where the backend finds it), "cpu" or "cuda". Never replaced by another one in silence.
        threads: CPU threads of the network (not TensorRT); None: the cores this process may use, at most 8.
        spinning: how idle threads of ONNX Runtime wait for the next operator of a run. None: they spin for a moment, on
            Linux with ONNX Runtime 1.26 or later, and give way to other work. True: to the end of the run, which a
            busy machine pays for. False: never.
        options: further options of the backend's class, such as `precision="bf16"` for OpenVINO and torch. One that
            the backend does not have is refused.

    Raises:
        InputError: for an unknown backend, device or option, or a backend that cannot read this kind of file.
        ArtifactError: for a missing, empty, damaged or foreign file.
        MissingDependencyError: when the backend's package or device is not there.
    """
    file = check_file(path)
    name = choose_backend(file, backend)
    one_of(device, "device", DEVICES)
    if threads is not None:
        threads = whole(threads, "threads", 1, 1024)
    if not isinstance(spinning, (bool, type(None))):
        raise InputError(
            f"spinning is {shown(spinning)}, not True, False or None.", remedy="leave it out for the default, None"
        )
    if name == "tensorrt" and device == "cpu":
        raise InputError("An engine cannot run on the CPU.", remedy="run the .onnx on the CPU instead")
    kind = _backend_class("torch program" if file.suffix.lower() in PROGRAMS else name)
    known = set(inspect.signature(kind).parameters) - {"path"}
    given = {**options, **({"threads": threads} if threads else {})}
    if spinning or (spinning is False and "spinning" in known):  # without it nothing spins anyway
        given["spinning"] = spinning
    unknown = sorted(set(given) - known)
    if unknown:
        takes = ", ".join(sorted(known - {"device"})) or "none"
        raise InputError(
            f"The {name} backend has no option {', '.join(unknown)} for {file.suffix} files.",
            remedy=f"leave it out; it takes: {takes}",
        )
    if name in ("onnxruntime", "openvino"):
        given.setdefault("threads", default_threads())
    if "device" in known:
        given["device"] = device
    opened: Backend = kind(file, **given)
    return opened


def _backend_class(name: str) -> Any:
    """A backend's class, imported when it is needed. Its signature declares the options that it takes."""
    module, kind = _CLASSES[name]
    return getattr(importlib.import_module(f"cast_sdk.runtime.backends.{module}"), kind)


def choose_backend(path: Path, backend: str = "auto") -> str:
    """Name of the backend for a file: the suffix's first choice, or the one asked for if it reads such files."""
    readers = _BY_SUFFIX.get(path.suffix.lower())
    if readers is None:
        raise ArtifactError(
            f"{path.name} does not have the suffix of a model file.",
            remedy=f"name a file that ends in {', '.join(_BY_SUFFIX)}, or export one with: "
            "cast-export --ckpt CHECKPOINT --out MODEL.onnx",
        )
    if one_of(backend, "backend", ("auto", *BACKENDS)) == "auto":
        return readers[0]
    if backend not in readers:
        remedy = "build an engine with: cast-export --onnx MODEL.onnx --trt" if backend == "tensorrt" else None
        raise InputError(
            f"The {backend} backend cannot read {path.suffix} files.",
            found=path.name,
            remedy=remedy or f"use backend={readers[0]!r}, or leave it to 'auto'",
        )
    return backend


def is_checkpoint(path: str | os.PathLike[str], backend: str = "auto") -> bool:
    """Whether torch runs the file's weights themselves. Errors as `choose_backend`."""
    file = Path(path)
    return choose_backend(file, backend) == "torch" and file.suffix.lower() not in PROGRAMS
