"""The compiled inner loops of tracking (`_tracking.cpp`): the results of the NumPy code, bit for bit, in less time."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.superpixels.kernels import native_library

Labels = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Columns = npt.NDArray[np.int64]

_OUTSIDE = -2  # as in _tracking.cpp
_first_byte = ctypes.c_char.from_buffer


def outside() -> ValueError:
    """What both codes say of a label that is not in its range."""
    return ValueError("tracking: a label is negative or not below the count that it came with")


def available() -> bool:
    """Whether the compiled library is there, and has these functions."""
    return _library() is not None


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = native_library()
    if library is None or not hasattr(library, "cast_track_one_level"):
        return None
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    library.cast_track_superpixels.argtypes = [integer] * 3 + [pointer] * 2 + [integer] * 2 + [pointer] * 3
    library.cast_track_one_level.argtypes = [integer] * 4 + [pointer] * 5 + [real] * 3 + [pointer] * 3
    library.cast_track_parents.argtypes = [integer] * 3 + [pointer] * 5
    return library


def superpixels(
    now: Labels, before: Labels, count_now: int, count_before: int, step: int
) -> tuple[Floats, Columns, Columns]:
    """As `assignment.superpixels`."""
    areas = np.empty(count_now, np.float32)
    source, same = np.empty(count_now, np.int64), np.empty(count_now, np.int64)
    height, width = now.shape
    _call(
        "cast_track_superpixels", height, width, step, _whole(now, np.int32), _whole(before, np.int32),
        count_now, count_before, areas, source, same,
    )  # fmt: skip
    return areas, source, same


def level(
    shares: Floats, current: Columns, source: Columns, member: Labels, areas: Floats, rate: float, margin: float
) -> tuple[Floats, Columns, Columns]:
    """As `membership.level`."""
    count, tracks, segments = len(member), shares.shape[1], int(member.max()) + 1
    out = np.empty(count * (tracks + segments), np.float32)
    now, columns = np.empty(count, np.int64), np.empty(tracks + segments, np.int64)
    kept = _call(
        "cast_track_one_level", count, len(shares), tracks, segments, _whole(shares, np.float32),
        _whole(current, np.int64), _whole(source, np.int64), _whole(member, np.int32), _whole(areas, np.float32),
        1 - rate, rate, margin, out, now, columns,
    )  # fmt: skip
    return out[: count * kept].reshape(count, kept), now, columns[:kept]


def parents(column: Labels, count: int, shares: Floats, current: Columns, areas: Floats) -> Columns:
    """As `membership.parents`."""
    out = np.empty(count, np.int64)
    _call(
        "cast_track_parents", len(column), shares.shape[1], count, _whole(shares, np.float32),
        _whole(current, np.int64), _whole(column, np.int32), _whole(areas, np.float32), out,
    )  # fmt: skip
    return out


def _whole(values: npt.NDArray[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(values, kind)


def _call(name: str, *arguments: Any) -> int:
    given = [_address(value) if isinstance(value, np.ndarray) else value for value in arguments]
    code = getattr(_library(), name)(*given)
    if code == _OUTSIDE:
        raise outside()
    if code < 0:
        raise MemoryError("tracking: no memory for a frame")
    return int(code)


def _address(values: Any) -> int:  # of an array
    try:  # a third of the time of `values.ctypes.data`, which read-only and empty arrays need
        return ctypes.addressof(_first_byte(values))
    except (TypeError, ValueError):
        return int(values.ctypes.data)
