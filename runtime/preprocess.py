"""From whatever the caller has to an RGB image of the model's size, and back to the frame's pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.runtime.inputs.reading import Frame, read_frame
from cast_sdk.runtime.resample import resample_window

Fit = Literal["stretch", "crop"]
FITS = ("stretch", "crop")


@dataclass(frozen=True)
class Geometry:
    """Where the model's image lies in the frame.

    The frame is resized to `resized` and the window of `size` at (`top`, `left`) of that is what the model sees.
    All are (height, width) in pixels. "stretch" resizes to the window itself.
    """

    frame: tuple[int, int]
    resized: tuple[int, int]
    size: tuple[int, int]
    top: int = 0
    left: int = 0

    @property
    def covers(self) -> bool:
        """True when every pixel of the frame is seen."""
        return self.resized == self.size

    def to_image(self, x: float, y: float) -> tuple[int, int] | None:
        """(row, column) in the model's image of a point of the frame, by the rule of `to_frame`; None outside the crop.

        Raises:
            InputError: for a point outside the frame.
        """
        height, width = self.frame
        if not (isinstance(x, Real) and isinstance(y, Real) and 0 <= x < width and 0 <= y < height):
            raise InputError(
                f"The point ({x}, {y}) is outside the frame.",
                found=f"{width} x {height} pixels",
                remedy=f"give x from 0 to {width - 1} and y from 0 to {height - 1}",
            )
        row = (2 * int(y) + 1) * self.resized[0] // (2 * height) - self.top
        column = (2 * int(x) + 1) * self.resized[1] // (2 * width) - self.left
        inside = 0 <= row < self.size[0] and 0 <= column < self.size[1]
        return (row, column) if inside else None

    def to_frame(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Nearest-neighbour map at the frame's size from one at the model's size; -1 outside the crop."""
        rows = _source_index(self.frame[0], self.resized[0]) - self.top
        columns = _source_index(self.frame[1], self.resized[1]) - self.left
        if self.covers:
            return values.take(rows, 0).take(columns, 1)
        inside_rows = (rows >= 0) & (rows < self.size[0])
        inside_columns = (columns >= 0) & (columns < self.size[1])
        out = np.full(self.frame, -1, values.dtype)
        out[np.ix_(inside_rows, inside_columns)] = values.take(rows[inside_rows], 0).take(columns[inside_columns], 1)
        return out

    def spans(self) -> tuple[Spans, Spans]:
        """Rows and columns of the model's map as `to_frame` spreads them over the frame."""
        rows, columns = (
            Spans.of(_source_index(frame, resized) - offset, size)
            for frame, resized, size, offset in zip(
                self.frame, self.resized, self.size, (self.top, self.left), strict=True
            )
        )
        return rows, columns


class Spans(NamedTuple):
    """Rows (or columns) of a map, and the stretch of the frame's that shows each.

    Attributes:
        source: those that the frame shows, ascending: int64 [n].
        first: of the frame's, where each begins: int64 [n].
        length: how many show it: int64 [n].
    """

    source: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]

    @classmethod
    def of(cls, source: npt.NDArray[np.int64], size: int) -> Spans:
        """Of the map's row for each of the frame's; those outside 0..size-1 are outside the crop."""
        inside = np.flatnonzero((source >= 0) & (source < size))
        shown, first, length = np.unique(source[inside], return_index=True, return_counts=True)
        return cls(shown, inside[first], length)


@dataclass
class Prepared:
    """A frame on its way to the model.

    Attributes:
        image: uint8 [H, W, 3] RGB at the model's size.
        geometry: where that lies in the frame.
        frame: uint8 [h, w, 3] BGR, the frame itself (the caller's array, not a copy).
        superpixels: int32 [H, W] once they are computed; zeros for models that use none.
        timing: milliseconds per stage so far.
        source: path of the frame, if it came from one.
        scene: number of the scene that the frame belongs to, in a stream that looks for cuts.
    """

    image: npt.NDArray[np.uint8]
    geometry: Geometry
    frame: npt.NDArray[np.uint8]
    timing: dict[str, float] = field(default_factory=dict)
    superpixels: npt.NDArray[np.int32] | None = None
    source: str | None = None
    scene: int = 0


def prepare(frame: Frame, size: tuple[int, int], fit: Fit = "stretch", *, cubic: bool = False) -> Prepared:
    """Read, check, resize and convert one frame.

    Args:
        frame: see `Runtime.segment`.
        size: (height, width) of the model's input.
        fit: "stretch" resizes the whole frame. "crop" is the reference's evaluation: the short side becomes 256/224 of
            the model's side, then the centre is cut out.
        cubic: bicubic instead of bilinear, as the DeiT recipes evaluate.

    Raises:
        InputError: for anything that is not such a frame.
    """
    start = perf_counter()
    timing: dict[str, float] = {}
    pixels, source, decoded = read_frame(frame)
    if decoded:
        timing["decode"] = (perf_counter() - start) * 1e3
        start = perf_counter()
    geometry = fit_geometry((pixels.shape[0], pixels.shape[1]), size, fit)
    image = resize(pixels, geometry, cubic=cubic)
    timing["preprocess"] = (perf_counter() - start) * 1e3
    return Prepared(image=image, geometry=geometry, frame=pixels, timing=timing, source=source)


def fit_geometry(frame: tuple[int, int], size: tuple[int, int], fit: Fit) -> Geometry:
    """Geometry of a frame of (height, width) `frame` for a model input of `size`."""
    if fit == "stretch":
        return Geometry(frame, size, size)
    if fit != "crop":
        raise InputError(f"There is no fit {fit!r}.", remedy=f"choose one of {', '.join(FITS)}")
    height, width = frame
    rows, columns = round(size[0] * 256 / 224), round(size[1] * 256 / 224)
    # Integer arithmetic and half-to-even rounding as torchvision's Resize and CenterCrop.
    if height * columns <= width * rows:
        resized = (rows, int(rows * width / height))
    else:
        resized = (int(columns * height / width), columns)
    return Geometry(frame, resized, size, round((resized[0] - size[0]) / 2.0), round((resized[1] - size[1]) / 2.0))


def resize(bgr: npt.NDArray[np.uint8], geometry: Geometry, *, cubic: bool = False) -> npt.NDArray[np.uint8]:
    """RGB image of the model's size: uint8 [H, W, 3], C-contiguous.

    One rule for both fits and both axes: `resample_window`, as training and evaluation resize.
    """
    return resample_window(bgr, geometry.resized, geometry.top, geometry.left, geometry.size, cubic=cubic, reverse=True)


def check_text(name: str) -> None:
    """Refuse a name that OpenCV crashes on: one whose bytes are not UTF-8.

    Raises:
        InputError: naming it with the bytes escaped.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"The name {name.encode(errors='backslashreplace').decode()} is not UTF-8, which OpenCV needs.",
            remedy="rename the file, for instance with: convmv -f latin1 -t utf8 --notest FILE",
        ) from error


def _source_index(length: int, resized: int) -> npt.NDArray[np.intp]:
    """For each of `length` pixels the one of `resized` pixels under its centre."""
    return ((2 * np.arange(length, dtype=np.int64) + 1) * resized // (2 * length)).astype(np.intp)
