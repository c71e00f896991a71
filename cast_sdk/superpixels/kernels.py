"""The kernels that compute SEEDS labels from a LAB image, and their reuse from frame to frame."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import MissingDependencyError

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


class Kernel(Protocol):
    """Buffers for one image size and one set of settings. Not for two threads at a time."""

    name: ClassVar[Literal["native", "opencv"]]

    def __init__(self, height: int, width: int, count: int, bins: int, iterations: int) -> None: ...

    def __call__(self, lab: Image, out: Labels) -> None:
        """Write the labels of `lab` (uint8 [H, W, 3], C-contiguous) into `out` (int32 [H, W], C-contiguous)."""


class OpenCVKernel:
    """`cv2.ximgproc.SuperpixelSEEDS`, of opencv-contrib-python."""

    name: ClassVar[Literal["native", "opencv"]] = "opencv"

    def __init__(self, height: int, width: int, count: int, bins: int, iterations: int) -> None:
        import cv2

        self._iterations = iterations
        self._seeds = cv2.ximgproc.createSuperpixelSEEDS(
            width, height, 3, count, num_levels=1, prior=2, histogram_bins=bins, double_step=False
        )

    def __call__(self, lab: Image, out: Labels) -> None:
        self._seeds.iterate(lab, self._iterations)
        np.copyto(out, self._seeds.getLabels())  # passing `out` would not fill it


@functools.cache
def kernel_class() -> type[Kernel]:
    """The kernel to use here.

    Raises:
        MissingDependencyError: without OpenCV, or when neither kernel exists.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "Superpixels need OpenCV (colour conversion).", found=str(error), remedy="pip install opencv-python"
        ) from error
    if hasattr(cv2, "ximgproc"):
        return OpenCVKernel
    raise MissingDependencyError(
        "Superpixels need cast-sdk's own SEEDS kernel, or OpenCV's contrib module.",
        found="an installation of cast-sdk without its compiled kernel, and an OpenCV without cv2.ximgproc",
        remedy="install a C++ compiler (apt install g++) and run: pip install --force-reinstall --no-deps cast-sdk; "
        "or replace OpenCV: pip uninstall opencv-python && pip install opencv-contrib-python",
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
