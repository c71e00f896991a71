"""What an image file says about its picture before any pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Alpha = Literal["straight", "premultiplied", "none"]


@dataclass(frozen=True)
class Header:
    """The stated picture.

    Attributes:
        format: "JPEG", "PNG", "WebP", "TIFF", "AVIF", "JPEG 2000", "BMP" or "PNM".
        width: stored columns, before the picture is turned.
        height: stored rows.
        orientation: EXIF's 1..8, for `orientation.upright`; 1 where OpenCV has turned the picture itself (TIFF).
        highest: the stored value that means full brightness.
        alpha: what a fourth channel means: colours beside their opacity, colours multiplied by it, or nothing.
        transparent: the stored grey value that is see-through, as PNG has it and OpenCV does not look at it.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    highest: int = 255
    alpha: Alpha = "straight"
    transparent: int | None = None


class Refused(Exception):
    """A picture that this reader does not take, with what about it, and sometimes a remedy."""

    def __init__(self, found: str, remedy: str | None = None) -> None:
        super().__init__(found)
        self.found, self.remedy = found, remedy


class Incomplete(Exception):
    """A file that ends before its picture does, or contradicts itself, with what is wrong."""
