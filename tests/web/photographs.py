"""Photographs of many kinds, made from the pictures in the package: sizes, orientations, formats, colour types."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
_ORIENTATION = 0x0112


def make_photographs(folder: Path) -> Iterator[Path]:
    """Thirty-three files in `folder`."""
    cat, coffee, rocket = (Image.open(PHOTOS / f"{name}.jpg").convert("RGB") for name in ("cat", "coffee", "rocket"))

    def save(image: Image.Image, name: str, **options: Any) -> Path:
        path = folder / name
        image.save(path, **options)
        return path

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        yield save((cat, coffee, rocket)[orientation % 3], f"orientation{orientation}.jpg", quality=88, exif=exif)
    yield save(cat.resize((3000, 2000), Image.Resampling.BICUBIC), "large.jpg", quality=90)
    yield save(coffee.resize((1920, 1080)), "wide.jpg", quality=80)
    yield save(rocket.resize((480, 1600)), "tall.jpg", quality=92)
    yield save(coffee.resize((192, 192)), "twice.jpg", quality=95)
    yield save(cat.resize((96, 96)), "equal.png")
    yield save(rocket.resize((60, 40)), "tiny.jpg", quality=95)
    yield save(coffee.resize((61, 300)), "narrow.png")
    yield save(cat.resize((300, 50)), "flat.webp", lossless=True)
    yield save(rocket, "progressive.jpg", quality=75, progressive=True)
    yield save(coffee, "full_chroma.jpg", quality=90, subsampling=0)
    yield save(cat, "half_chroma.jpg", quality=60, subsampling=1)
    yield save(rocket.convert("L"), "grey.jpg", quality=90)
    yield save(coffee, "profile.jpg", quality=90, icc_profile=_foreign_profile())
    yield save(cat, "colour.png")
    yield save(rocket.convert("L"), "grey.png")
    yield save(coffee.quantize(64), "palette.png")
    yield save(_transparent(cat), "transparent.png")
    yield save(_transparent(coffee), "transparent.webp", lossless=True)
    yield save(rocket, "lossy.webp", quality=80)
    yield save(coffee, "lossless.webp", lossless=True)
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    yield save(cat, "oriented.png", exif=exif)
    exif[_ORIENTATION] = 7
    yield save(coffee, "oriented.webp", lossless=True, exif=exif)
    exif[_ORIENTATION] = 8
    yield save(_transparent(cat), "oriented_transparent.png", exif=exif)
    deep = np.asarray(rocket)[..., ::-1].astype(np.uint16) * 257
    deep += np.random.default_rng(0).integers(0, 256, deep.shape, np.uint16) * (deep < 65000)
    path = folder / "deep.png"
    cv2.imwrite(str(path), deep)
    yield path
    tag = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = b"eXIf" + tag
    data = path.read_bytes()
    path = folder / "oriented_deep.png"
    path.write_bytes(data[:33] + len(tag).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + data[33:])
    yield path


def _transparent(image: Image.Image) -> Image.Image:
    rows, columns = np.mgrid[: image.height, : image.width]
    alpha = (255 * (0.5 + 0.5 * np.sin(rows / 40) * np.cos(columns / 55))).astype(np.uint8)
    return Image.fromarray(np.dstack([np.asarray(image), alpha]), "RGBA")


def _foreign_profile() -> bytes:
    """A colour profile with red and green exchanged: who obeys it shows it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = {
        bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12)
    }
    red, green = table[b"rXYZ"] + 4, table[b"gXYZ"] + 4
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    return bytes(profile)
