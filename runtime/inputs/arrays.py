"""Frames in memory: arrays of OpenCV's kind and PIL images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from cast_sdk.decoding.pixels import over_white, to_8_bits
from cast_sdk.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

_BGR_REMEDY = (
    "give H x W x 3 uint8 BGR as cv2.imread and cv2.VideoCapture do, a path or address, the bytes of an image file, "
    "a PIL image or a torch tensor"
)


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


def _from_pil(image: Image) -> npt.NDArray[np.uint8]:
    try:
        image.load()
    except (ValueError, AssertionError) as error:  # it is read when its pixels are asked for
        raise InputError(
            "The PIL image was closed before its pixels were read.",
            found=str(error) or None,
            remedy="give it while its file is open, or call image.load() there",
        ) from error
    except OSError as error:
        raise InputError("The PIL image cannot be read.", found=str(error), remedy="check its file") from error
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
