"""From whatever the caller has to an RGB image of the model's size, and back to the frame's pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from cast_sdk.decoding.pixels import over_white, to_8_bits
from cast_sdk.decoding.reader import read_image
from cast_sdk.errors import InputError
from cast_sdk.system.opencv import import_cv2

if TYPE_CHECKING:
    from PIL.Image import Image

Fit = Literal["stretch", "crop"]
FITS = ("stretch", "crop")
Frame: TypeAlias = "npt.NDArray[np.uint8] | str | os.PathLike[str] | Image"

_BGR_REMEDY = "give H x W x 3 uint8 BGR as cv2.imread and cv2.VideoCapture do, a path, or a PIL image"


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
        if not (0 <= x < width and 0 <= y < height):
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
        frame: uint8 [h, w, 3] BGR; also [h, w], [h, w, 1] grey and [h, w, 4] BGRA (alpha is left out); a path of an
            image file; or a PIL image.
        size: (height, width) of the model's input.
        fit: "stretch" resizes the whole frame. "crop" is the reference's evaluation: the short side becomes 256/224 of
            the model's side, then the centre is cut out.
        cubic: "crop" only: bicubic instead of bilinear, as the DeiT recipes evaluate.

    Raises:
        InputError: for anything that is not such a frame.
    """
    start = perf_counter()
    timing: dict[str, float] = {}
    source = None
    if isinstance(frame, (str, os.PathLike)):
        source = os.fspath(frame)
        pixels = read_image(source)
        timing["decode"] = (perf_counter() - start) * 1e3
        start = perf_counter()
    else:
        pixels = to_bgr(frame)
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
    """RGB image of the model's size: uint8 [H, W, 3], C-contiguous."""
    if not geometry.covers:
        from cast_sdk.runtime.resample import resample_window

        return resample_window(
            bgr[..., ::-1], geometry.resized, geometry.top, geometry.left, geometry.size, cubic=cubic
        )
    cv2 = import_cv2()
    (height, width), (target_height, target_width) = geometry.frame, geometry.size
    image = np.ascontiguousarray(bgr)
    # Area averaging where an axis shrinks, linear where it grows: cv2 offers one rule for both axes, so two steps.
    if height > target_height and width < target_width:
        image = cv2.resize(image, (width, target_height), interpolation=cv2.INTER_AREA)
    elif width > target_width and height < target_height:
        image = cv2.resize(image, (target_width, height), interpolation=cv2.INTER_AREA)
    shrinks = image.shape[0] >= target_height and image.shape[1] >= target_width
    rule = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    if image.shape[:2] != geometry.size:
        image = cv2.resize(image, (target_width, target_height), interpolation=rule)
    return cast("npt.NDArray[np.uint8]", cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def to_bgr(frame: object) -> npt.NDArray[np.uint8]:
    """uint8 [h, w, 3] BGR from an array or a PIL image; the same array where it already is one."""
    if not isinstance(frame, np.ndarray):
        if type(frame).__module__.split(".")[0] == "PIL" and hasattr(frame, "convert"):
            return _from_pil(cast("Image", frame))
        raise InputError(
            f"The frame is of the type {type(frame).__name__}, not an array, a path or a PIL image.", remedy=_BGR_REMEDY
        )
    frame = np.asarray(frame)  # np.matrix and other subclasses compute by rules of their own
    shape = f"{frame.dtype} array of shape {frame.shape}"
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] not in (1, 3, 4)):
        remedy = _BGR_REMEDY
        if frame.ndim == 3 and frame.shape[0] in (1, 3, 4):
            remedy = "channels come last: frame.transpose(1, 2, 0)"
        elif frame.ndim == 4:
            remedy = "give a list of frames to segment_batch"
        raise InputError(f"The frame is not of the shape height x width x 3: {shape}.", remedy=remedy)
    if frame.size == 0:
        raise InputError(
            f"The frame is empty ({frame.shape[0]} x {frame.shape[1]}).",
            remedy="check the crop or the camera that made it (did the read succeed?)",
        )
    if frame.dtype != np.uint8:
        raise InputError(
            f"The frame holds {frame.dtype} values, not uint8.", found=_not_finite(frame), remedy=_to_uint8(frame)
        )
    if frame.ndim == 2:
        frame = frame[..., None]
    if frame.shape[2] == 1:
        return np.repeat(frame, 3, axis=2)
    return cast("npt.NDArray[np.uint8]", frame[..., :3])


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


def _from_pil(image: Image) -> npt.NDArray[np.uint8]:
    if image.width == 0 or image.height == 0:
        raise InputError(
            f"The frame is empty ({image.height} x {image.width}).", remedy="check the crop that made the PIL image"
        )
    if image.mode.startswith("I;16"):
        grey = to_8_bits(np.asarray(image).astype(np.uint16), 65535)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("F", "I"):
        raise InputError(
            f"The PIL image has the mode {image.mode!r}, which is not 8 or 16 bits per channel.",
            remedy="scale it to 0..255 and call image.convert('L')",
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        return over_white(rgba[..., 2::-1], rgba[..., 3])
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])


def _not_finite(frame: npt.NDArray[Any]) -> str | None:
    bad = int(frame.size - np.isfinite(frame).sum()) if frame.dtype.kind == "f" else 0
    return f"{bad} values that are NaN or infinite" if bad else None


def _to_uint8(frame: npt.NDArray[Any]) -> str:
    if frame.dtype.kind == "f":
        if not np.isfinite(frame).all():
            return "find where the NaN values come from; then convert to uint8"
        return "for values in 0..1: (frame * 255).round().astype(numpy.uint8)"
    if frame.dtype == np.uint16:
        return "for 16-bit data: (frame >> 8).astype(numpy.uint8); shift 10- or 12-bit cameras by 2 or 4"
    if frame.dtype == np.bool_:
        return "frame.astype(numpy.uint8) * 255"
    return "frame.clip(0, 255).astype(numpy.uint8), if its values mean 0..255"
