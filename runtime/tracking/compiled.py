"""The compiled parts of tracking (`_tracking.cpp`, `_film.cpp`): the results of the NumPy code, bit for bit, sooner."""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.runtime.tracking.assignment import outside, sampling_step
from cast_sdk.runtime.tracking.membership import Rule
from cast_sdk.runtime.tracking.plain import Frame, Labels
from cast_sdk.superpixels.kernels import native_library

_OUTSIDE = -2  # as in _counting.h
_first_byte = ctypes.c_char.from_buffer


def available() -> bool:
    """Whether the compiled library is there, and has these functions."""
    return _library() is not None


@functools.cache
def _library() -> ctypes.PyDLL | None:
    built = native_library()
    if built is None or not hasattr(built, "cast_tracker_update"):
        return None
    # Keeps the interpreter's lock: to get it back in a busy stream takes longer than a call, up to some thousand
    # superpixels.
    library = ctypes.PyDLL(built._name)
    pointer, integer, long, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
    library.cast_tracker_create.argtypes = [real] * 3
    library.cast_tracker_create.restype = pointer
    library.cast_tracker_update.argtypes = [pointer, *[integer] * 3, pointer, integer, integer, pointer, long, pointer]
    library.cast_tracker_update.restype = long
    library.cast_tracker_give.argtypes = [pointer] * 3
    library.cast_tracker_give.restype = None
    for name in ("cast_tracker_reset", "cast_tracker_destroy"):
        function = getattr(library, name)
        function.argtypes, function.restype = [pointer], None
    library.cast_film_colours.argtypes = [pointer, integer, integer, pointer]
    library.cast_film_colours.restype = None
    library.cast_film_beyond.argtypes = [pointer, long, integer, ctypes.c_double, ctypes.c_double]
    library.cast_film_beyond.restype = long
    return library


class State:
    """As `plain.State`."""

    def __init__(self, rule: Rule) -> None:
        library = _library()
        assert library is not None
        self._handle = library.cast_tracker_create(1 - rule.rate, rule.rate, rule.margin)
        if not self._handle:
            raise MemoryError("tracking: no memory for a tracker")
        self._lock = threading.Lock()  # the calls of a frame belong together
        self._update, self._give = library.cast_tracker_update, library.cast_tracker_give
        self._reset = library.cast_tracker_reset
        self._prepare(0)
        # Not at the interpreter's exit, when daemon threads may still be in a call.
        weakref.finalize(self, library.cast_tracker_destroy, self._handle).atexit = False

    def _prepare(self, levels: int) -> None:
        self._levels = levels
        self._counts, self._members = (ctypes.c_int * (2 * levels))(), (ctypes.c_void_p * levels)()

    def reset(self) -> None:
        """As `plain.State.reset`."""
        with self._lock:
            self._reset(self._handle)

    def update(self, superpixels: Labels, members: tuple[Labels, ...], next_id: int) -> Frame:
        """As `plain.State.update`."""
        count, levels = len(members[0]), len(members) - 1
        pixels, given = _whole(superpixels, np.int32), [_whole(member, np.int32) for member in members[1:]]
        if count == 0 or {count, *map(len, given)} != {count}:
            self.reset()
            raise outside()
        height, width = pixels.shape
        shown = np.empty((levels, count), np.int32)
        with self._lock:
            if levels != self._levels:
                self._prepare(levels)
            self._members[:] = [*map(_address, given)]
            next_id = _checked(
                self._update(
                    self._handle, height, width, sampling_step(pixels.shape), _address(pixels),
                    count, levels, self._members, next_id, self._counts,
                )
            )  # fmt: skip
            counts = self._counts[:]
            values = np.empty(2 * count + 2 * sum(counts[::2]) + sum(counts[1::2]), np.int64)
            self._give(self._handle, _address(shown), _address(values))
        ids, ages = [values[:count]], [values[count : 2 * count]]
        alive, at = [ids[0]], 2 * count
        for number, living in zip(counts[::2], counts[1::2], strict=True):
            begin, end = at + number, at + 2 * number
            ids.append(values[at:begin])
            ages.append(values[begin:end])
            at = end + living
            alive.append(values[end:at])
        return Frame([members[0], *shown], tuple(ids), tuple(ages), alive, next_id)


def colours(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """As `film.colours`."""
    library, counts, image = _library(), np.empty(512, np.int64), _whole(image, np.uint8)
    assert library is not None
    library.cast_film_colours(_address(image), *image.shape[:2], _address(counts))
    return counts


def beyond(labels: Labels, count: int, low: float, high: float) -> int:
    """As `film.beyond`."""
    library, labels = _library(), _whole(labels, np.int32)
    assert library is not None
    return _checked(library.cast_film_beyond(_address(labels), labels.size, count, low, high))


def _whole(values: npt.NDArray[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(values, kind)


def _checked(code: int) -> int:
    if code == _OUTSIDE:
        raise outside()
    if code < 0:
        raise MemoryError("tracking: no memory for a frame")
    return code


def _address(values: Any) -> int:  # of an array
    try:  # a third of the time of `values.ctypes.data`, which read-only and empty arrays need
        return ctypes.addressof(_first_byte(values))
    except (TypeError, ValueError):
        return int(values.ctypes.data)
