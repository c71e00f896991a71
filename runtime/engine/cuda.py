"""The part of the CUDA runtime that an engine needs: memory, one stream, events and graphs. No torch, no compiler.

The calls go through libcudart, which comes with CUDA, with JetPack and with the packages that bring CUDA to Python.
"""

from __future__ import annotations

import ctypes
import enum
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import CudaError, MissingDependencyError
from cast_sdk.runtime.engine.api import is_jetson

_NON_BLOCKING = 1  # cudaStreamNonBlocking: no implicit waiting for the legacy default stream


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    index: int
    name: str
    compute_capability: tuple[int, int]

    @property
    def target(self) -> str:
        """For example "sm86"."""
        return "sm{}{}".format(*self.compute_capability)


class Cuda:
    """CUDA runtime calls that raise instead of returning codes. Handles are integers.

    Args:
        api: a `CudartLibrary`: every function returns (code, *results).
    """

    def __init__(self, api: Any) -> None:
        self.api = api

    def call(self, name: str, *arguments: Any) -> Any:
        """Result of a call: nothing, one value or a tuple.

        Raises:
            CudaError: with CUDA's own name and description of the failure.
        """
        code, *results = getattr(self.api, name)(*arguments)
        if int(code) != 0:
            raise CudaError(
                f"The CUDA call {name} failed.",
                found=self.describe(code),
                remedy="cast-doctor checks the driver; on out-of-memory close other programs that use the GPU",
            )
        return results[0] if len(results) == 1 else tuple(results) or None

    def describe(self, code: Any) -> str:
        """For example "cudaErrorInsufficientDriver (35): CUDA driver version is ..."."""
        texts = []
        for function in ("cudaGetErrorName", "cudaGetErrorString"):
            _, text = getattr(self.api, function)(code)
            texts.append(text.decode() if isinstance(text, bytes) else str(text))
        return f"{texts[0]} ({int(code)}): {texts[1]}"

    # devices ---------------------------------------------------------------------------------------------------------

    def device_count(self) -> int:
        return int(self.call("cudaGetDeviceCount"))

    def set_device(self, index: int) -> None:
        """Make a device the current one of the calling thread."""
        self.call("cudaSetDevice", index)

    def gpu(self, index: int = 0) -> Gpu:
        kinds = self.api.cudaDeviceAttr
        major, minor = (
            int(self.call("cudaDeviceGetAttribute", kind, index))
            for kind in (kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor)
        )
        name = self.call("cudaGetDeviceProperties", index).name
        return Gpu(index, name.split(b"\0")[0].decode() if isinstance(name, bytes) else str(name), (major, minor))

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the current device."""
        free, total = self.call("cudaMemGetInfo")
        return int(free), int(total)

    def versions(self) -> tuple[int, int]:
        """(driver, runtime) as CUDA numbers them, e.g. 13000; the driver's is 0 where there is none."""
        return int(self.call("cudaDriverGetVersion")), int(self.call("cudaRuntimeGetVersion"))

    # stream and events -----------------------------------------------------------------------------------------------

    def stream(self) -> int:
        return int(self.call("cudaStreamCreateWithFlags", _NON_BLOCKING))

    def synchronize(self, stream: int) -> None:
        self.call("cudaStreamSynchronize", stream)

    def event(self) -> Any:
        return self.call("cudaEventCreateWithFlags", 0)

    def record(self, event: Any, stream: int) -> None:
        self.call("cudaEventRecord", event, stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(self.call("cudaEventElapsedTime", start, end))

    # graphs ----------------------------------------------------------------------------------------------------------

    def begin_capture(self, stream: int) -> None:
        # Thread-local: calls of other threads, such as another engine's allocation, do not break this capture.
        self.call("cudaStreamBeginCapture", stream, self.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)

    def end_capture(self, stream: int) -> Any:
        return self.call("cudaStreamEndCapture", stream)

    def instantiate(self, graph: Any) -> Any:
        return self.call("cudaGraphInstantiateWithFlags", graph, 0)

    def launch(self, executable: Any, stream: int) -> None:
        self.call("cudaGraphLaunch", executable, stream)

    def forget_error(self) -> None:
        """Clear the error that a failed capture leaves behind."""
        self.api.cudaGetLastError()

    # memory ----------------------------------------------------------------------------------------------------------

    def copy_to_device(self, buffer: Buffer, stream: int) -> None:
        kind = self.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", buffer.device, buffer.pinned, buffer.nbytes, kind, stream)

    def copy_to_host(self, buffer: Buffer, stream: int) -> None:
        kind = self.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", buffer.pinned, buffer.device, buffer.nbytes, kind, stream)


class Buffer:
    """Pinned host memory and device memory of one tensor, allocated once. `host` is the NumPy view of the former."""

    def __init__(self, cuda: Cuda, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        self._cuda = cuda
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        self.device = int(cuda.call("cudaMalloc", self.nbytes))
        try:
            self.pinned = int(cuda.call("cudaHostAlloc", self.nbytes, 0))
        except CudaError:
            cuda.call("cudaFree", self.device)
            raise
        memory = (ctypes.c_ubyte * self.nbytes).from_address(self.pinned)
        self.host: npt.NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

    def free(self) -> None:
        """Give the memory back; `host` must not be used afterwards. Twice is fine."""
        device, pinned, self.device, self.pinned = self.device, self.pinned, 0, 0
        if device:
            self._cuda.call("cudaFree", device)
        if pinned:
            self._cuda.call("cudaFreeHost", pinned)


def open_cuda() -> Cuda:
    """CUDA through the first libcudart that finds a GPU.

    One that is newer than the driver finds none where an older one does, so all are asked.

    Raises:
        MissingDependencyError: when none is installed, or when there is no usable GPU.
    """
    reason = None
    for api in cudart_libraries():
        cuda = Cuda(api)
        code, count = api.cudaGetDeviceCount()
        if int(code) == 0 and count:
            return cuda
        reason = reason or (cuda.describe(code) if int(code) else "no CUDA device")
    if reason is None:
        raise MissingDependencyError(
            "The CUDA runtime library (libcudart), which runs engines, is not there.",
            found="looked for " + ", ".join(cudart_candidates()),
            remedy="sudo apt install cuda-cudart-12-6 (part of JetPack)"
            if is_jetson()
            else "pip install nvidia-cuda-runtime-cu12",
        )
    raise MissingDependencyError(
        "There is no usable NVIDIA GPU.",
        found=reason,
        remedy="run the .onnx on the CPU (device='cpu') or use a machine with a GPU; cast-doctor checks the driver",
    )


def find_gpu(index: int = 0) -> Gpu | None:
    """A GPU, or None on a machine without any."""
    try:
        return open_cuda().gpu(index)
    except MissingDependencyError:
        return None


def cudart_libraries() -> Iterator[CudartLibrary]:
    """Every libcudart that can be loaded, in the order of `cudart_candidates`."""
    for name in cudart_candidates():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        yield CudartLibrary(library)


def cudart_candidates() -> Iterator[str]:
    """Names and paths of libcudart to try, newest first: the loader's, the toolkit's, those of installed wheels."""
    if sys.platform == "win32":
        yield from ("cudart64_13.dll", "cudart64_12.dll")
        return
    yield from ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
    folders = [Path("/usr/local/cuda/lib64"), Path("/usr/local/cuda/lib")]
    for entry in sys.path:
        folders += sorted(Path(entry).glob("nvidia/*/lib"), reverse=True) if entry else []
    for folder in folders:
        yield from map(str, sorted(folder.glob("libcudart.so*"), reverse=True))


# libcudart -----------------------------------------------------------------------------------------------------------

_POINTER, _INT, _SIZE, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_float
_UINT, _FLAGS64 = ctypes.c_uint, ctypes.c_ulonglong
# name -> (results, arguments); in C the results come first, as pointers, but for cudaStreamEndCapture.
_SIGNATURES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "cudaGetDeviceCount": ((_INT,), ()),
    "cudaSetDevice": ((), (_INT,)),
    "cudaDeviceGetAttribute": ((_INT,), (_INT, _INT)),
    "cudaMemGetInfo": ((_SIZE, _SIZE), ()),
    "cudaDriverGetVersion": ((_INT,), ()),
    "cudaRuntimeGetVersion": ((_INT,), ()),
    "cudaGetLastError": ((), ()),
    "cudaMalloc": ((_POINTER,), (_SIZE,)),
    "cudaFree": ((), (_POINTER,)),
    "cudaHostAlloc": ((_POINTER,), (_SIZE, _UINT)),
    "cudaFreeHost": ((), (_POINTER,)),
    "cudaMemcpyAsync": ((), (_POINTER, _POINTER, _SIZE, _INT, _POINTER)),
    "cudaStreamCreateWithFlags": ((_POINTER,), (_UINT,)),
    "cudaStreamSynchronize": ((), (_POINTER,)),
    "cudaStreamDestroy": ((), (_POINTER,)),
    "cudaEventCreateWithFlags": ((_POINTER,), (_UINT,)),
    "cudaEventRecord": ((), (_POINTER, _POINTER)),
    "cudaEventElapsedTime": ((_FLOAT,), (_POINTER, _POINTER)),
    "cudaEventDestroy": ((), (_POINTER,)),
    "cudaStreamBeginCapture": ((), (_POINTER, _INT)),
    "cudaGraphInstantiateWithFlags": ((_POINTER,), (_POINTER, _FLAGS64)),
    "cudaGraphLaunch": ((), (_POINTER, _POINTER)),
    "cudaGraphExecDestroy": ((), (_POINTER,)),
    "cudaGraphDestroy": ((), (_POINTER,)),
}


class _Properties:
    def __init__(self, name: bytes) -> None:
        self.name = name


class CudartLibrary:
    """libcudart through ctypes: each function returns its code and then its results, None where it failed."""

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode(enum.IntEnum):
        cudaStreamCaptureModeThreadLocal = 1

    class cudaDeviceAttr(enum.IntEnum):
        cudaDevAttrComputeCapabilityMajor = 75
        cudaDevAttrComputeCapabilityMinor = 76

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        if name not in _SIGNATURES:
            raise AttributeError(name)
        results, arguments = _SIGNATURES[name]
        function = getattr(self._library, name)
        function.argtypes = (*(ctypes.POINTER(kind) for kind in results), *arguments)

        def call(*values: Any) -> tuple[Any, ...]:
            outs = [kind() for kind in results]
            code = function(*map(ctypes.byref, outs), *values)
            return (code, *(out.value or 0 for out in outs)) if code == 0 else (code, *(None for _ in outs))

        setattr(self, name, call)
        return call

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, Any]:
        graph = _POINTER()
        code = self._library.cudaStreamEndCapture(_POINTER(stream), ctypes.byref(graph))
        return code, graph.value

    def cudaGetDeviceProperties(self, index: int) -> tuple[int, Any]:
        # The struct differs between versions, but its first member is always `char name[256]`. CUDA 12 renamed the
        # function (the header's macro hides that) and 13 renamed it back.
        function = getattr(self._library, "cudaGetDeviceProperties_v2", None) or self._library.cudaGetDeviceProperties
        memory = ctypes.create_string_buffer(1 << 14)
        code = function(memory, _INT(index))
        return code, _Properties(memory.raw[:256])

    def cudaGetErrorName(self, code: int) -> tuple[int, bytes]:
        return 0, self._text("cudaGetErrorName", code)

    def cudaGetErrorString(self, code: int) -> tuple[int, bytes]:
        return 0, self._text("cudaGetErrorString", code)

    def _text(self, name: str, code: int) -> bytes:
        function = getattr(self._library, name)
        function.restype = ctypes.c_char_p
        return function(_INT(int(code))) or b"unknown"
