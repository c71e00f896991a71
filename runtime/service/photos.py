"""A photograph from a stranger: measured before it is decoded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cast_sdk.decoding.reader import decode
from cast_sdk.errors import TooLargeError
from cast_sdk.system.opencv import import_cv2

MAX_BYTES = 16 * 2**20
MAX_PIXELS = 50_000_000
MAX_SIDE = 1600  # larger photographs are reduced to it: the model looks at far fewer pixels anyway
FORMATS = ("JPEG", "PNG", "WebP")


def too_large(limit: int, found: str | None = None, *, form: bool = False) -> TooLargeError:
    """The error of a photograph, or of a whole form, that has more bytes than `limit`."""
    what = "form" if form else "photograph"
    remedy = "send fewer or smaller photographs" if form else "reduce it before it is sent"
    return TooLargeError(f"The {what} is larger than {limit >> 20} MiB.", found=found, remedy=remedy)


def read_photo(data: bytes) -> npt.NDArray[np.uint8]:
    """uint8 [h, w, 3] BGR of a JPEG, PNG or WebP, by the rules of `decode`, at most `MAX_SIDE` pixels wide or high.

    The size that the header states is checked before any pixel is decoded.

    Raises:
        TooLargeError: more than `MAX_BYTES` or `MAX_PIXELS`.
        InputError: no such image, or a damaged one.
    """
    if len(data) > MAX_BYTES:
        raise too_large(MAX_BYTES)
    pixels = decode(data, "that was sent", max_pixels=MAX_PIXELS, formats=FORMATS)
    factor = MAX_SIDE / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    cv2 = import_cv2()
    height, width = (max(1, round(length * factor)) for length in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
