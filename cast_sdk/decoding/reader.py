"""From an image file to pixels: the one rule for orientation, depth, transparency, damage and size.

OpenCV decodes, in whatever version is installed; what its versions do differently is done here, so that a file has the
same pixels everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cast_sdk.decoding import png
from cast_sdk.decoding.formats import read_header
from cast_sdk.decoding.header import Header, Incomplete, Refused
from cast_sdk.decoding.orientation import upright
from cast_sdk.decoding.pixels import Pixels, over_white, to_8_bits
from cast_sdk.errors import InputError, TooLargeError
from cast_sdk.system.files import kind_at
from cast_sdk.system.opencv import import_cv2

MAX_PIXELS = 2**28  # 268 megapixels, 0.8 GB when decoded
_AGAIN = "copy the file again"
_CONVERT = "convert it to an 8-bit PNG"
_READ = ("JPEG", "PNG", "WebP", "TIFF", "AVIF", "JPEG 2000", "BMP", "PNM")


def read_image(path: str | os.PathLike[str]) -> Pixels:
    """Decode an image file to uint8 [h, w, 3] BGR: `decode` of its bytes.

    Raises:
        InputError: missing, a folder, unreadable, and what `decode` refuses.
    """
    path = os.fspath(path)
    file = Path(path)
    kind = kind_at(path)
    if kind == "folder":
        raise InputError(f"The image {path} is a folder.", remedy="name one file, or use stream(folder)")
    if kind == "other":
        raise InputError(f"The image {path} is a pipe, socket or device.", remedy="name an ordinary file")
    if "\0" in str(path):
        raise InputError(f"{path!r} is no name of an image.", remedy="check the path")
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"There is no image {path}.", remedy="check the path") from error
    except OSError as error:
        raise InputError(
            f"The image {path} cannot be read.", found=error.strerror, remedy=f"check it with: ls -l {path}"
        ) from error
    return decode(data, path)


def decode(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, formats: Collection[str] | None = None) -> Pixels:
    """Encoded image -> uint8 [h, w, 3] BGR, C-contiguous.

    Turned upright by the orientation that JPEG, PNG, WebP, TIFF and AVIF files state; of several frames or pages the
    first; colour profiles are not applied; more than 8 bits are scaled to 8 and rounded; transparency is laid over
    white. The stated size is looked at before any pixel is decoded.

    Args:
        data: The file.
        name: For messages: a path, or what the bytes came from.
        max_pixels: More are refused.
        formats: `Header.format`s to take; default: all.

    Raises:
        TooLargeError: more than `max_pixels`.
        InputError: empty, damaged, half a file, not an image, or one of a kind that is not taken (GIF, HEIC, camera
            raw, floating-point values ...).
    """
    if not data:
        raise InputError(f"The image {name} is empty.", remedy=_AGAIN)
    header = _header(data, name, formats or _READ)
    if formats is not None and header.format not in formats:
        raise InputError(
            f"The image {name} is not a {', '.join(formats)} file.", found=header.format, remedy="convert it first"
        )
    if header.width <= 0 or header.height <= 0:
        raise InputError(f"The image {name} is empty ({header.height} x {header.width}).", remedy=_AGAIN)
    if header.width * header.height > max_pixels:
        raise TooLargeError(
            f"The image {name} has more than {max_pixels / 1e6:.3g} megapixels.",
            found=f"{header.width} x {header.height} pixels",
            remedy="make it smaller, or cut it into tiles",
        )
    pixels = _flattened(_stored(data, header, name), header)
    return np.ascontiguousarray(upright(pixels, header.orientation))


def _header(data: bytes, name: str, formats: Collection[str]) -> Header:
    try:
        header = read_header(data)
    except Incomplete as error:
        raise InputError(f"The image {name} is damaged or not complete.", found=str(error), remedy=_AGAIN) from error
    except Refused as error:
        raise InputError(
            f"The image {name} is of a kind that is not read.", found=error.found, remedy=error.remedy or _CONVERT
        ) from error
    if header is None:
        raise InputError(
            f"The image {name} is not of a format that is read ({', '.join(formats)}).",
            found=f"{len(data)} bytes that begin with {data[:8]!r}",
            remedy="check that it is an image and complete, or convert it to PNG",
        )
    return header


def _stored(data: bytes, header: Header, name: str) -> npt.NDArray[np.unsignedinteger]:
    """The pixels as OpenCV decodes them: [h, w], [h, w, 3] BGR or [h, w, 4] BGRA, of 8 or 16 bits, not turned."""
    cv2 = import_cv2()
    if header.format == "PNG":
        data = png.still(data)
    elif header.format == "PNM":
        data += b"\n"  # OpenCV wants something behind the last number of a text file
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(f"OpenCV cannot decode the image {name}.", found=error.err, remedy=_CONVERT) from error
    if pixels is None and header.format == "AVIF" and not cv2.haveImageWriter("x.avif"):
        raise InputError(
            f"The image {name} is an AVIF file, which this OpenCV does not read.",
            found=f"OpenCV {cv2.__version__}",
            remedy="install OpenCV 4.12 or newer, or convert the file to PNG",
        )
    if pixels is None:
        raise InputError(
            f"The image {name} is damaged: OpenCV {cv2.__version__} does not decode it.",
            found=f"{header.format}, {len(data)} bytes",
            remedy=f"{_AGAIN}, or {_CONVERT}",
        )
    if pixels.dtype not in (np.uint8, np.uint16) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise InputError(
            f"The image {name} is of a kind that is not read.",
            found=f"{pixels.dtype} values of the shape {pixels.shape}",
            remedy=_CONVERT,
        )
    return pixels


def _flattened(stored: npt.NDArray[np.unsignedinteger], header: Header) -> Pixels:
    """uint8 [h, w, 3] BGR without transparency."""
    pixels = to_8_bits(stored, header.highest)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        grey = pixels.reshape(pixels.shape[:2])
        if header.transparent is not None:
            grey = np.where(stored.reshape(grey.shape) == header.transparent, np.uint8(255), grey)
        return np.repeat(grey[..., None], 3, axis=2)
    if pixels.shape[2] == 3:
        return pixels
    if header.alpha == "none":
        return pixels[..., :3]
    return over_white(pixels[..., :3], pixels[..., 3], premultiplied=header.alpha == "premultiplied")
