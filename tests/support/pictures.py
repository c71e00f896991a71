"""Image files of many kinds with the pixels that they show, made without the reader that is tested."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Pixels = npt.NDArray[np.uint8]
H, W = 37, 53
ROWS, COLUMNS = np.mgrid[:H, :W]
RGB = np.stack([4 * COLUMNS % 256, 6 * ROWS % 256, (3 * ROWS + 2 * COLUMNS) % 256], -1).astype(np.uint8)
GREY = RGB[..., 0]
ALPHA = ((5 * COLUMNS + 3 * ROWS) % 256).astype(np.uint8)
RGBA = np.dstack([RGB, ALPHA])
NOISE = np.random.default_rng(0).integers(-120, 120, RGB.shape)
DEEP = np.clip(RGB.astype(np.int64) * 257 + NOISE, 0, 65535).astype(np.uint16)
DEEP_ALPHA = ALPHA.astype(np.uint16) * 257


def on_white(colour: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> Pixels:
    share = alpha[..., None] / 255
    return np.floor(colour * share + 255 * (1 - share) + 0.5 + 1e-9).astype(np.uint8)


def rounded(values: npt.NDArray[Any], highest: int) -> Pixels:
    return np.floor(values.astype(np.float64) * 255 / highest + 0.5).astype(np.uint8)


def grey(values: npt.NDArray[Any]) -> Pixels:
    return np.repeat(values[..., None], 3, axis=2)


def oriented(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """By Pillow's rule."""
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def saved(pixels: npt.NDArray[Any] | Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def png(values: npt.NDArray[Any], colour: int, bits: int = 16, extra: bytes = b"") -> bytes:
    """A PNG of [h, w, channels] of a colour type; `extra` are chunks before the pixels."""
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def png_of_depth(bits: int) -> bytes:
    """Grey with a see-through value, that states another depth than its pixels have."""
    data = png(GREY[..., None], 0, 8, chunk(b"tRNS", b"\0\x07"))
    return data[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, bits, 0, 0, 0, 0)) + data[33:]


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def tiff(values: npt.NDArray[Any], photometric: int, order: str = "<", **tags: int) -> bytes:
    """A TIFF of one strip: interleaved samples, tags by number as t258=8."""
    samples = values.shape[2] if values.ndim == 3 else 1
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits = 8 * values.dtype.itemsize
    entries = {256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: photometric, 277: samples}
    entries |= {278: values.shape[0], 279: len(data)} | {int(name[1:]): value for name, value in tags.items()}
    more = b""
    start = 8 + 2 + 12 * (len(entries) + 1) + 4
    if samples > 2:  # too many numbers for the entry itself
        more = struct.pack(f"{order}{samples}H", *[entries[258]] * samples)
    entries[273] = start + len(more)
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    for tag, value in sorted(entries.items()):
        if tag == 258 and more:
            out += struct.pack(order + "HHII", tag, 3, samples, start)
        elif tag == 258 and samples == 2:
            out += struct.pack(order + "HHIHH", tag, 3, 2, value, value)
        else:
            out += struct.pack(order + "HHII", tag, 4, 1, value)
    return out + struct.pack(order + "I", 0) + more + data


def bmp32(top_down: bool) -> bytes:
    """Four bytes a pixel, the fourth of no meaning and zero."""
    rows = RGB if top_down else RGB[::-1]
    data = np.dstack([rows[..., ::-1], np.zeros((H, W), np.uint8)]).tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, W, -H if top_down else H, 1, 32, 0, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + head + data


def exact() -> Iterator[tuple[str, bytes, npt.NDArray[Any]]]:
    """(name, file, the RGB pixels that it shows), lossless kinds."""
    palette = Image.fromarray(RGB).quantize(64)
    colours = np.asarray(palette.convert("RGB"))
    for n in range(1, 9):
        yield f"turned{n}.png", saved(RGB, "PNG", exif=exif(n)), oriented(RGB, n)
        yield f"turned{n}.webp", saved(RGB, "WEBP", lossless=True, exif=exif(n)), oriented(RGB, n)
        for name, order in (("", "<"), ("-big-endian", ">")):
            yield f"turned{n}{name}.tif", tiff(RGB, 2, order, t274=n), oriented(RGB, n)
            yield f"turned{n}-grey{name}.tif", tiff(GREY, 1, order, t274=n), grey(oriented(GREY, n))
            deep = np.dstack([oriented(rounded(DEEP[..., c], 65535), n) for c in range(3)])
            yield f"turned{n}-deep{name}.tif", tiff(DEEP, 2, order, t274=n), deep
        yield f"turned{n}-transparent.png", saved(RGBA, "PNG", exif=exif(n)), oriented(on_white(RGB, ALPHA), n)
    late = saved(RGB, "PNG")
    late = late[:-12] + chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")) + late[-12:]
    yield "turned-behind-the-pixels.png", late, oriented(RGB, 6)
    yield "colour.png", saved(RGB, "PNG"), RGB
    yield "grey.png", saved(GREY, "PNG"), grey(GREY)
    yield (
        "bits.png",
        saved(Image.fromarray(GREY).convert("1"), "PNG"),
        grey(np.asarray(Image.fromarray(GREY).convert("1").convert("L"))),
    )
    yield "palette.png", saved(palette, "PNG"), colours
    opacity = (4 * np.arange(64)).astype(np.uint8)
    yield (
        "palette-transparent.png",
        saved(palette, "PNG", transparency=opacity.tobytes()),
        on_white(colours, opacity[np.asarray(palette)]),
    )
    yield "transparent.png", saved(RGBA, "PNG"), on_white(RGB, ALPHA)
    yield "grey-transparent.png", saved(np.dstack([GREY, ALPHA]), "PNG"), on_white(grey(GREY), ALPHA)
    yield "transparent.webp", saved(RGBA, "WEBP", lossless=True, exact=True), on_white(RGB, ALPHA)
    key = RGB[5, 5]
    marked = np.where((key == RGB).all(-1)[..., None], np.uint8(255), RGB)
    yield "one-colour-transparent.png", saved(RGB, "PNG", transparency=tuple(map(int, key))), marked
    clear = np.where(GREY == 40, np.uint8(255), GREY)
    yield "one-grey-transparent.png", saved(GREY, "PNG", transparency=40), grey(clear)
    yield "gamma.png", png(RGB, 2, 8, chunk(b"gAMA", struct.pack(">I", 100000))), RGB
    yield "deep.png", png(DEEP, 2), rounded(DEEP, 65535)
    yield "deep-grey.png", png(DEEP[..., :1], 0), grey(rounded(DEEP[..., 0], 65535))
    mixed = on_white(rounded(DEEP, 65535), ALPHA)
    yield "deep-transparent.png", png(np.dstack([DEEP, DEEP_ALPHA]), 6), mixed
    yield (
        "deep-grey-transparent.png",
        png(np.dstack([DEEP[..., 0], DEEP_ALPHA]), 4),
        on_white(grey(rounded(DEEP[..., 0], 65535)), ALPHA),
    )
    key16 = struct.pack(">H", int(DEEP[5, 5, 0]))
    clear = np.where(DEEP[..., 0] == DEEP[5, 5, 0], np.uint8(255), rounded(DEEP[..., 0], 65535))
    yield "deep-one-grey-transparent.png", png(DEEP[..., :1], 0, 16, chunk(b"tRNS", key16)), grey(clear)
    other = RGB[::-1].copy()
    for default in (False, True):
        animated = saved(RGB, "PNG", save_all=True, append_images=[Image.fromarray(other)] * 2, default_image=default)
        yield f"animated-{default}.png", animated, RGB
    yield "colour.webp", saved(RGB, "WEBP", lossless=True), RGB
    yield "grey.tif", saved(GREY, "TIFF"), grey(GREY)
    yield "packed.tif", saved(RGB, "TIFF", compression="tiff_lzw"), RGB
    yield "deflated.tif", saved(RGB, "TIFF", compression="tiff_adobe_deflate"), RGB
    yield "palette.tif", saved(palette, "TIFF"), colours
    yield "white-is-zero.tif", tiff(255 - GREY, 0), grey(GREY)
    yield "transparent.tif", tiff(RGBA, 2, t338=2), on_white(RGB, ALPHA)
    multiplied = rounded(RGB * (ALPHA[..., None] / 255), 255)
    yield (
        "multiplied.tif",
        tiff(np.dstack([multiplied, ALPHA]), 2, t338=1),
        (multiplied.astype(int) + 255 - ALPHA[..., None]).astype(np.uint8),
    )
    yield "fourth-channel-of-no-meaning.tif", tiff(RGBA, 2, t338=0), RGB
    yield "deep.tif", tiff(DEEP, 2), rounded(DEEP, 65535)
    yield "deep-grey.tif", tiff(DEEP[..., 0], 1), grey(rounded(DEEP[..., 0], 65535))
    yield "deep-transparent.tif", tiff(np.dstack([DEEP, DEEP_ALPHA]), 2, t338=2), mixed
    yield "two-pages.tif", saved(RGB, "TIFF", save_all=True, append_images=[Image.fromarray(other)]), RGB
    yield "colour.jp2", saved(RGB, "JPEG2000", irreversible=False), RGB
    yield "grey.jp2", saved(GREY, "JPEG2000", irreversible=False), grey(GREY)
    yield "transparent.jp2", saved(RGBA, "JPEG2000", irreversible=False), on_white(RGB, ALPHA)
    yield "colour.bmp", saved(RGB, "BMP"), RGB
    yield "palette.bmp", saved(palette, "BMP"), colours
    for down in (False, True):
        yield f"four-bytes-{down}.bmp", bmp32(down), RGB
    size = f"{W} {H}\n".encode()
    yield "colour.ppm", b"P6\n# a remark\n" + size + b"255\n" + RGB.tobytes(), RGB
    yield "dark.ppm", b"P6\n" + size + b"63\n" + (RGB >> 2).tobytes(), rounded(RGB >> 2, 63)
    yield (
        "dark.pgm",
        b"P5\n" + size + b"1023\n" + (DEEP[..., 0] >> 6).astype(">u2").tobytes(),
        grey(rounded(DEEP[..., 0] >> 6, 1023)),
    )
    yield "deep.ppm", b"P6\n" + size + b"65535\n" + DEEP.astype(">u2").tobytes(), rounded(DEEP, 65535)
    yield "text.pgm", b"P2\n" + size + b"255\n" + b" ".join(b"%d" % value for value in GREY.ravel()), grey(GREY)


def photographs() -> Iterator[tuple[str, bytes, Pixels]]:
    """(name, file, the RGB pixels that Pillow decodes), JPEG kinds."""
    rng = np.random.default_rng(1)
    smooth = np.asarray(
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
    )
    kinds: dict[str, tuple[npt.NDArray[Any], dict[str, Any]]] = {
        "usual": (smooth, {}),
        "full-chroma": (smooth, {"subsampling": 0, "quality": 95}),
        "half-chroma": (smooth, {"subsampling": 1}),
        "progressive": (smooth, {"progressive": True}),
        "grey": (smooth[..., 0], {}),
        "odd-size": (smooth[:77, :91], {"quality": 60}),
        **{f"turned{n}": (smooth, {"exif": exif(n)}) for n in range(1, 9)},
    }
    for name, (pixels, options) in kinds.items():
        data = saved(pixels, "JPEG", **options)
        yield f"{name}.jpg", data, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
