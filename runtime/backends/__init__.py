"""One interface for whatever runs the network: ONNX Runtime, OpenVINO, TensorRT or torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ArtifactError, InputError
from cast_sdk.spec import ModelSpec

BACKENDS = ("onnxruntime", "openvino", "tensorrt", "torch")
DEVICES = ("auto", "cpu", "cuda")
_BY_SUFFIX = {
    ".onnx": ("onnxruntime", "openvino", "tensorrt"),
    ".engine": ("tensorrt",),
    ".plan": ("tensorrt",),
    ".pth": ("torch",),
    ".pt": ("torch",),
    ".tar": ("torch",),
    ".safetensors": ("torch",),
    ".ep": ("torch",),
}


@runtime_checkable
class Backend(Protocol):
    """A loaded network.

    Attributes:
        spec: the model's description.
        info: the graph's static shapes and precision; `info.batch` None means any batch.
        device: "cpu" or "cuda", what it really runs on.
    """

    spec: ModelSpec
    info: ExportInfo
    device: str

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> dict[str, np.ndarray]:
        """Run one batch.

        Args:
            image: uint8 [B, H, W, 3] RGB, C-contiguous.
            superpixels: int32 [B, H, W], labels below `info.num_superpixels`; ignored by models without superpixels.

        Returns:
            Arrays by output name: `embedding` float32 [B, C]; `logits` float32 [B, classes] with a classifier;
            `level1`.. int32 [B, S], composed fine to coarse, for hierarchical models; `semantic` int32 [B, S] for
            dense heads; soft assignments and tokens where the export asked for them. The caller owns the arrays.
        """
        ...

    def close(self) -> None:
        """Free the network. Further calls of `run` are errors; closing twice is not."""
        ...


def open_backend(
    path: str | os.PathLike[str],
    backend: str = "auto",
    device: str = "auto",
    *,
    threads: int | None = None,
    spinning: bool = False,
    **options: Any,
) -> Backend:
    """Load a model file with the backend its suffix names, or with the one asked for.

    Args:
        path: `.onnx` (ONNX Runtime, or `backend="openvino"`, or `backend="tensorrt"`, which builds an engine once and
            keeps it), `.engine` (TensorRT), `.pth`, `.pth.tar`, `.pt` or `.safetensors` (torch), `.ep` (a compiled
            torch program).
        backend: "auto" or one of `BACKENDS`.
        device: "auto" (CUDA where the backend finds it), "cpu" or "cuda". Never replaced by another one in silence.
        threads: CPU threads of the network; None: the cores this process may use, at most 8.
        spinning: let idle threads spin during a run (ONNX Runtime): faster on an idle machine, slower on a busy one.
        options: what only one backend knows, such as `precision="bf16"` for OpenVINO.

    Raises:
        InputError: for an unknown backend, device or option, or a backend that cannot read this kind of file.
        ArtifactError: for a missing, empty, damaged or foreign file.
        MissingDependencyError: when the backend's package or device is not there.
    """
    file = check_file(path)
    name = choose_backend(file, backend)
    if device not in DEVICES:
        raise InputError(f"A device is one of {', '.join(DEVICES)}.", found=repr(device))
    if threads is not None and threads < 1:
        raise InputError("A backend needs at least one thread.", found=f"threads={threads}")
    cores = threads or default_threads()
    try:
        if name == "tensorrt":
            if device == "cpu":
                raise InputError(
                    "An engine runs on an NVIDIA GPU.", found="device='cpu'", remedy="run the .onnx on the CPU instead"
                )
            from cast_sdk.runtime.backends.tensorrt import TensorRTBackend

            return TensorRTBackend(file, **options)
        if name == "onnxruntime":
            from cast_sdk.runtime.backends.onnxruntime import OnnxRuntimeBackend

            return OnnxRuntimeBackend(file, device=device, threads=cores, spinning=spinning, **options)
        if name == "openvino":
            from cast_sdk.runtime.backends.openvino import OpenVINOBackend

            return OpenVINOBackend(file, device=device, threads=cores, **options)
        if file.suffix.lower() == ".ep":
            from cast_sdk.runtime.backends.torch_program import TorchProgramBackend

            return TorchProgramBackend(file, device=device, **options)
        from cast_sdk.runtime.backends.torch import TorchBackend

        return TorchBackend(file, device=device, threads=threads, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise InputError(f"The {name} backend knows its own options only.", found=str(error)) from error


def choose_backend(path: Path, backend: str = "auto") -> str:
    """Name of the backend for a file: the suffix's first choice, or the one asked for if it reads such files."""
    readers = _BY_SUFFIX.get(path.suffix.lower())
    if readers is None:
        raise ArtifactError(
            f"A model file ends in {', '.join(_BY_SUFFIX)}.",
            found=path.name,
            remedy="export one with: cast-export --ckpt CHECKPOINT --out MODEL.onnx",
        )
    if backend == "auto":
        return readers[0]
    if backend not in BACKENDS:
        raise InputError(f"A backend is auto or one of {', '.join(BACKENDS)}.", found=repr(backend))
    if backend not in readers:
        remedy = "build an engine with: cast-export --onnx MODEL.onnx --trt" if backend == "tensorrt" else None
        raise InputError(
            f"The {backend} backend cannot read {path.suffix} files.",
            found=path.name,
            remedy=remedy or f"use backend={readers[0]!r}, or leave it to 'auto'",
        )
    return backend


def check_file(path: str | os.PathLike[str]) -> Path:
    """The path, if it is a file with content.

    Raises:
        ArtifactError: missing, a folder, empty or unreadable.
    """
    file = Path(path)
    if not file.exists():
        raise ArtifactError("The model file must exist.", found=f"no file {file}", remedy="check the path")
    if file.is_dir():
        raise ArtifactError("A model is one file.", found=f"the folder {file}", remedy="name a file in it")
    if file.stat().st_size == 0:
        raise ArtifactError(
            "A model file has content.", found=f"{file} is empty", remedy="copy or export the file again"
        )
    if not os.access(file, os.R_OK):
        raise ArtifactError("The model file must be readable.", found=f"no permission to read {file}")
    return file


def check_batch(info: ExportInfo, image: np.ndarray, superpixels: np.ndarray) -> None:
    """Check one batch against the static shapes, before a backend's own less helpful message.

    Raises:
        InputError: for another dtype or shape, naming both.
    """
    batch = info.batch or len(image)
    pixels = (batch, info.height, info.width)
    for name, array, dtype, shape in (
        ("image", image, np.dtype(np.uint8), (*pixels, 3)),
        ("superpixels", superpixels, np.dtype(np.int32), pixels),
    ):
        if array.dtype != dtype or array.shape != shape:
            raise InputError(
                f"The model's input {name!r} is {dtype} of shape {list(shape)}.",
                found=f"{array.dtype} of shape {list(array.shape)}",
                remedy="use Runtime, which prepares frames of any size, or export with --image-size and --batch",
            )


def default_threads() -> int:
    """Cores this process may use (affinity and container quota), at most 8: the model is too small for more."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        return min(cores, 8)  # no cgroup v2 here: the affinity is all there is to know
    return min(cores, 8)
