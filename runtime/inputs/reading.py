"""One frame of any kind that is taken, as pixels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from cast_sdk.decoding.reader import decode, read_image
from cast_sdk.errors import InputError, TooLargeError
from cast_sdk.runtime.inputs import addresses, tensors
from cast_sdk.runtime.inputs.arrays import to_bgr
from cast_sdk.system.secrets import mask

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Frame: TypeAlias = "npt.NDArray[np.uint8] | str | os.PathLike[str] | bytes | BinaryIO | Image | Tensor"
MAX_BYTES = 2**30  # of a file object: more is no photograph


def read_frame(frame: Frame) -> tuple[npt.NDArray[np.uint8], str | None, bool]:
    """Pixels of a frame.

    Args:
        frame: an array, a path, an http(s) address, the bytes of an image file, a file object opened in binary mode and
            read from where it stands, a PIL image or a torch tensor. `Runtime.segment` says more.

    Returns:
        uint8 [h, w, 3] BGR; a name for it, if it has one; whether it was decoded from a file.

    Raises:
        InputError: for anything else, and for what cannot be read.
    """
    if isinstance(frame, str) and addresses.is_address(frame):
        return decode(addresses.download(frame), mask(frame)), mask(frame), True
    if isinstance(frame, (str, os.PathLike)):
        path = os.fspath(frame)
        return read_image(path), path, True
    if isinstance(frame, (bytes, bytearray, memoryview)):
        return decode(bytes(frame), f"of {len(frame)} bytes"), None, True
    if callable(getattr(frame, "read", None)) and not isinstance(frame, np.ndarray):
        data, name = _read_file(cast("BinaryIO", frame))
        return decode(data, name or "in the file object"), name, True
    if tensors.is_tensor(frame):
        return tensors.to_bgr(frame), None, False
    return to_bgr(frame), None, False


def _read_file(file: BinaryIO) -> tuple[bytes, str | None]:
    """What is left in a file object, and its name where that is a path."""
    name: Any = getattr(file, "name", None)
    name = name if isinstance(name, str) else None
    called = name or "in the file object"
    try:
        data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: closed
        raise InputError(f"The image {called} cannot be read.", found=str(error), remedy="open it again") from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InputError(
            f"The image {called} gives {type(data).__name__} and not bytes.", remedy='open it in binary mode: "rb"'
        )
    if len(data) > MAX_BYTES:
        raise TooLargeError(f"The image {called} has more than {MAX_BYTES >> 20} MiB.", remedy="check what it is")
    if not data:
        raise InputError(
            f"The image {called} is empty from where the file object stands.",
            remedy="call seek(0) where it was written or read before",
        )
    return bytes(data), name
