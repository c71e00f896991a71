"""A photograph from a stranger: measured before it is decoded."""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError, MissingDependencyError

MOST_BYTES = 16 * 2**20
MOST_PIXELS = 50_000_000
LONGEST_SIDE = 1600  # larger photographs are reduced to it: the model looks at far fewer pixels anyway
FORMATS = ("JPEG", "PNG", "WEBP")


class TooLargeError(InputError):
    """More bytes or pixels than the server takes."""


def read_photo(data: bytes) -> npt.NDArray[np.uint8]:
    """uint8 [h, w, 3] BGR of a JPEG, PNG or WebP, upright, at most `LONGEST_SIDE` pixels wide or high.

    The size that the header states is checked before any pixel is decoded.

    Raises:
        TooLargeError: more than `MOST_PIXELS`.
        InputError: no such image, or a damaged one.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependencyError(
            "Photographs from the web page are read by Pillow.",
            found=str(error),
            remedy="pip install 'cast-sdk[serve]'",
        ) from error
    kinds = "A photograph is a JPEG, PNG or WebP file."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is the lower one
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS or width == 0 or height == 0:
                    raise TooLargeError(
                        f"A photograph has at most {MOST_PIXELS / 1e6:g} megapixels.",
                        found=f"{width} x {height} pixels",
                    )
                if getattr(image, "n_frames", 1) > 1:
                    image.seek(0)
                image.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
                upright = ImageOps.exif_transpose(image)
                upright.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
                if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                    layer = upright.convert("RGBA")
                    upright = Image.new("RGB", layer.size, "white")
                    upright.paste(layer, mask=layer.getchannel("A"))
                return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[..., ::-1])
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"A photograph has at most {MOST_PIXELS / 1e6:g} megapixels.", found=str(error)) from error
    except UnidentifiedImageError as error:
        raise InputError(kinds, found="something else") from error
    except Exception as error:  # damaged files make decoders raise anything (OSError, SyntaxError, struct.error, ...)
        raise InputError(kinds, found=f"one that does not decode ({type(error).__name__}: {error})") from error
