"""The kernels that compute SEEDS labels from a LAB image, and their reuse from frame to frame."""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import MissingDependencyError
from cast_sdk.superpixels.grid import seeds_grid
from cast_sdk.system.installing import install_again
from cast_sdk.system.opencv import import_cv2

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


class Kernel(Protocol):
    """Buffers for one image size and one set of settings. Not for two threads at a time."""

    name: ClassVar[Literal["native", "opencv"]]

    def __init__(self, height: int, width: int, count: int, bins: int, iterations: int) -> None: ...

    def __call__(self, lab: Image, out: Labels) -> None:
        """Write the labels of `lab` (uint8 [H, W, 3], C-contiguous) into `out` (int32 [H, W], C-contiguous)."""


class NativeKernel:
    """The package's own kernel, `_seeds.cpp`."""

    name: ClassVar[Literal["native", "opencv"]] = "native"

    def __init__(self, height: int, width: int, count: int, bins: int, iterations: int) -> None:
        library = native_library()
        assert library is not None
        grid = seeds_grid(height, width, count)
        self._handle = library.cast_seeds_create(height, width, grid.block_rows, grid.block_columns, bins, iterations)
        if not self._handle:
            raise MemoryError(f"SEEDS: no memory for {height}x{width} pixels and {grid.count} superpixels")
        self._run = library.cast_seeds_run
        # Not at the interpreter's exit, when daemon threads may still be in a call.
        weakref.finalize(self, library.cast_seeds_destroy, self._handle).atexit = False

    def __call__(self, lab: Image, out: Labels) -> None:
        # ctypes lets go of the interpreter lock for the call.
        if self._run(self._handle, lab.ctypes.data, out.ctypes.data):
            raise MemoryError("SEEDS: no memory for the histograms")

    def resume(self, lab: Image, before: Labels, passes: int, out: Labels) -> bool:
        """As a call, from the labels `before` (int32 [H, W], C-contiguous); False when they are none of this grid."""
        library = native_library()
        assert library is not None
        code = library.cast_seeds_run_from(self._handle, lab.ctypes.data, before.ctypes.data, passes, out.ctypes.data)
        if code == 1:
            raise MemoryError("SEEDS: no memory for the histograms")
        return bool(code == 0)


class OpenCVKernel:
    """`cv2.ximgproc.SuperpixelSEEDS`, of opencv-contrib-python."""

    name: ClassVar[Literal["native", "opencv"]] = "opencv"

    def __init__(self, height: int, width: int, count: int, bins: int, iterations: int) -> None:
        ximgproc = import_cv2().ximgproc
        self._iterations = iterations
        self._seeds = ximgproc.createSuperpixelSEEDS(
            width, height, 3, count, num_levels=1, prior=2, histogram_bins=bins, double_step=False
        )

    def __call__(self, lab: Image, out: Labels) -> None:
        self._seeds.iterate(lab, self._iterations)
        np.copyto(out, self._seeds.getLabels())  # passing `out` would not fill it


@functools.cache
def native_library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it was not built.

    Raises:
        MissingDependencyError: when it is there but does not load, as after a move to another machine.
    """
    files = [*Path(__file__).parent.glob("_seeds*.so"), *Path(__file__).parent.glob("_seeds*.pyd")]
    if not files:
        return None
    try:
        library = ctypes.CDLL(str(files[0]))
    except OSError as error:
        raise MissingDependencyError(
            "The compiled SEEDS kernel does not load on this machine.",
            found=str(error),
            remedy=f"build it here, with a C++ compiler (sudo apt install g++), from its source: {install_again()}",
        ) from error
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    library.cast_seeds_create.argtypes = [integer] * 6
    library.cast_seeds_create.restype = pointer
    library.cast_seeds_run.argtypes = [pointer] * 3
    library.cast_seeds_run.restype = integer
    library.cast_seeds_run_from.argtypes = [pointer] * 3 + [integer, pointer]
    library.cast_seeds_run_from.restype = integer
    library.cast_seeds_destroy.argtypes = [pointer]
    library.cast_seeds_destroy.restype = None
    return library


@functools.cache
def kernel_class() -> type[Kernel]:
    """The kernel to use here.

    Raises:
        MissingDependencyError: without OpenCV, or when neither kernel exists.
    """
    cv2 = import_cv2()
    if native_library() is not None:
        return NativeKernel
    if hasattr(cv2, "ximgproc"):
        return OpenCVKernel
    raise MissingDependencyError(
        "No SEEDS kernel is installed, so there are no superpixels.",
        found="cast-sdk without its compiled kernel, and OpenCV without cv2.ximgproc",
        remedy=f"install a C++ compiler (sudo apt install g++), then cast-sdk once more: {install_again()}",
    )


@functools.lru_cache(maxsize=16)
def _idle(height: int, width: int, count: int, bins: int, iterations: int) -> deque[Kernel]:
    # A deque's append and pop are atomic: no lock that a fork could leave held.
    return deque(maxlen=16)


@contextmanager
def borrow(height: int, width: int, count: int, bins: int, iterations: int) -> Iterator[Kernel]:
    """A kernel for these sizes and settings that no other thread uses meanwhile; its buffers are kept for the next."""
    idle = _idle(height, width, count, bins, iterations)
    try:
        kernel = idle.pop()
    except IndexError:
        kernel = kernel_class()(height, width, count, bins, iterations)
    yield kernel
    idle.append(kernel)


def continue_labels(lab: Image, before: Labels, count: int, bins: int, passes: int, out: Labels) -> bool:
    """Labels of `lab` from the labels `before`, into `out`; False when those are none of this grid.

    Raises:
        MissingDependencyError: without the package's own kernel.
    """
    height, width = out.shape
    with borrow(height, width, count, bins, 0) as kernel:
        if not isinstance(kernel, NativeKernel):
            raise MissingDependencyError(
                "Superpixels can be continued by cast-sdk's own kernel only, and it was not built here.",
                remedy="install a C++ compiler (apt install g++) and run: pip install --force-reinstall --no-deps "
                "cast-sdk; or compute fresh ones",
            )
        return kernel.resume(lab, before, passes, out)
