"""The averaging matrices of superpixels over a resized grid, which graphs for CPUs take as inputs."""

from __future__ import annotations

import ctypes
import functools
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.superpixels.kernels import native_library
from cast_sdk.system.installing import install_again

Mode = Literal["bilinear", "bicubic"]
_CUBIC = -0.75  # the coefficient of the usual bicubic kernel


@functools.lru_cache(maxsize=64)
def taps(cells: int, pixels: int, mode: Mode) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Cells that each pixel reads when `cells` are resized to `pixels` (half-pixel centres, borders repeated).

    Returns:
        Cell int32 [pixels, n] and weight float32 [pixels, n]; n is 2 for "bilinear", 4 for "bicubic".
    """
    source = (np.arange(pixels) + 0.5) * (cells / pixels) - 0.5
    if mode == "bilinear":
        source = np.maximum(source, 0)
    start = np.floor(source)
    t = source - start
    if mode == "bilinear":
        offsets, weights = np.arange(2), np.stack([1 - t, t], 1)
    else:
        offsets, weights = np.arange(-1, 3), np.stack([_far(1 + t), _near(t), _near(1 - t), _far(2 - t)], 1)
    index = np.clip(start[:, None] + offsets, 0, cells - 1)
    return index.astype(np.int32), weights.astype(np.float32)


def resized_assignment(
    labels: npt.NDArray[np.int32], count: int, grid: tuple[int, int], mode: Mode, out: npt.NDArray[np.float32]
) -> None:
    """The matrix A with A @ grid features = segment means of the features resized to the label map.

    Args:
        labels: int32 [H, W], C-contiguous, values in 0..count-1.
        count: number of superpixels S.
        grid: (h, w), the cells.
        mode: of the resize.
        out: float32 [S, h * w], C-contiguous, overwritten. Rows of absent labels are zero, the others sum to one.

    Raises:
        InputError: for a label that is none of 0..count-1.
        MissingDependencyError: without the package's own kernel.
    """
    height, width = labels.shape
    assert labels.flags.c_contiguous and labels.dtype == np.int32
    assert out.flags.c_contiguous and out.dtype == np.float32 and out.size == count * grid[0] * grid[1]
    arguments: list[Any] = [labels.ctypes.data, height, width, count]
    for cells, pixels in zip(grid, (height, width), strict=True):
        index, weight = taps(cells, pixels, mode)
        arguments += [index.ctypes.data, weight.ctypes.data, index.shape[1]]
    code = _function()(*arguments, *grid, out.ctypes.data)
    if code == 2:
        raise InputError(
            f"The superpixel labels {labels.min()}..{labels.max()} do not lie in 0..{count - 1}.",
            remedy="export the model again with the size and superpixel settings it is run with",
        )
    if code:
        raise MemoryError("no memory for the averaging matrix of the superpixels")


@functools.cache
def _function() -> Any:
    """`cast_resized_assignment` of the compiled kernel.

    Raises:
        MissingDependencyError: when the kernel was not built, or comes from a version before this function.
    """
    library = native_library()
    if library is None or not hasattr(library, "cast_resized_assignment"):
        raise MissingDependencyError(
            "This graph for CPUs needs cast-sdk's own kernel, and it was not built here.",
            remedy=f"install a C++ compiler (sudo apt install g++), then cast-sdk once more: {install_again()}; or "
            "export the model without --target cpu",
        )
    function = library.cast_resized_assignment
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    axis = (pointer, pointer, integer)
    function.argtypes = (pointer, integer, integer, integer, *axis, *axis, integer, integer, pointer)
    function.restype = integer
    return function


def _near(d: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Bicubic kernel up to a distance of 1."""
    return ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1


def _far(d: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Bicubic kernel at a distance of 1 to 2."""
    return ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC
