"""A photograph from a stranger: measured before it is decoded."""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError, MissingDependencyError, TooLargeError
from cast_sdk.system.installing import pip_install

MAX_BYTES = 16 * 2**20
MAX_PIXELS = 50_000_000
MAX_SIDE = 1600  # larger photographs are reduced to it: the model looks at far fewer pixels anyway
FORMATS = ("JPEG", "PNG", "WEBP")


def read_photo(data: bytes) -> npt.NDArray[np.uint8]:
    """uint8 [h, w, 3] BGR of a JPEG, PNG or WebP, upright, at most `MAX_SIDE` pixels wide or high.

    The size that the header states is checked before any pixel is decoded.

    Raises:
        TooLargeError: more than `MAX_PIXELS`.
        InputError: no such image, or a damaged one.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError(
            "Pillow, which reads photographs from the web page, cannot be imported.",
            found=str(error),
            remedy=pip_install("serve"),
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is the lower one
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width == 0 or height == 0:
                    raise InputError(f"The photograph is empty ({height} x {width}).")
                if width * height > MAX_PIXELS:
                    raise TooLargeError(
                        f"The photograph has more than {MAX_PIXELS / 1e6:g} megapixels.",
                        found=f"{width} x {height} pixels",
                    )
                if getattr(image, "n_frames", 1) > 1:
                    image.seek(0)
                image.draft("RGB", (MAX_SIDE, MAX_SIDE))
                upright = ImageOps.exif_transpose(image)
                upright.thumbnail((MAX_SIDE, MAX_SIDE))
                if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                    layer = upright.convert("RGBA")
                    upright = Image.new("RGB", layer.size, "white")
                    upright.paste(layer, mask=layer.getchannel("A"))
                return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[..., ::-1])
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(
            f"The photograph has more than {MAX_PIXELS / 1e6:g} megapixels.", found=str(error)
        ) from error
    except UnidentifiedImageError as error:
        raise InputError("The photograph is not a JPEG, PNG or WebP file.") from error
    except Exception as error:  # damaged files make decoders raise anything (OSError, SyntaxError, struct.error, ...)
        raise InputError("The photograph cannot be decoded.", found=f"{type(error).__name__}: {error}") from error
