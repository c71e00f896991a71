"""One reader: what a file shows, whatever decodes it."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import cv2
import numpy as np
import pictures
import pytest
from PIL import Image, ImageOps

from cast_sdk.decoding import formats
from cast_sdk.decoding.reader import decode, read_image
from cast_sdk.errors import InputError, TooLargeError
from cast_sdk.runtime.inputs.arrays import to_bgr
from cast_sdk.runtime.service.photos import MAX_SIDE, read_photo
from cast_sdk.training.data.dataset import decode as training_decode
from cast_sdk.training.data.dense.base import read_rgb

EXACT = {name: (data, pixels) for name, data, pixels in pictures.exact()}
PHOTOGRAPHS = {name: (data, pixels) for name, data, pixels in pictures.photographs()}
# What this OpenCV lacks by its version: 4.8 reads no animated WebP, none before 4.12 reads AVIF.
needs_avif = pytest.mark.skipif(not cv2.haveImageWriter("x.avif"), reason=f"OpenCV {cv2.__version__} reads no AVIF")


def shown(data: bytes) -> np.ndarray:
    return decode(data, "it")[..., ::-1]


@pytest.mark.parametrize("name", [*EXACT, *PHOTOGRAPHS])
def test_a_file_shows_its_pixels(name):
    data, pixels = {**EXACT, **PHOTOGRAPHS}[name]
    found = decode(data, name)
    assert found.dtype == np.uint8 and found.flags.c_contiguous and found.flags.writeable
    assert np.array_equal(found[..., ::-1], pixels)


@pytest.mark.parametrize(
    "name", ["turned6.jpg", "turned6.png", "turned5.webp", "deep-transparent.png", "one-grey-transparent.png"]
)
def test_every_door_shows_the_same(name, tmp_path):
    data, pixels = {**EXACT, **PHOTOGRAPHS}[name]
    (tmp_path / name).write_bytes(data)
    assert np.array_equal(read_image(tmp_path / name)[..., ::-1], pixels)
    assert np.array_equal(read_photo(data)[..., ::-1], pixels)
    assert np.array_equal(training_decode(data, name).permute(1, 2, 0).numpy(), pixels)
    assert np.array_equal(read_rgb(tmp_path / name), pixels)


def test_pillow_images_of_8_bits_are_as_their_files():
    for name, (data, pixels) in {**EXACT, **PHOTOGRAPHS}.items():
        image = Image.open(io.BytesIO(data))
        if "deep" in name or "dark" in name or name.startswith(("multiplied", "transparent.tif")):
            continue  # Pillow cuts 16 bits off, and does not know what the others mean
        if name.endswith(".tif") and "turned" in name:
            continue  # Pillow turns some of them while it loads
        upright = ImageOps.exif_transpose(image)
        assert np.array_equal(to_bgr(upright)[..., ::-1], pixels), name


def test_print_colours():
    """Rounded otherwise than Pillow does, by one step of 255 at most; the same in every version of OpenCV."""
    image = Image.fromarray(pictures.RGB).convert("CMYK")
    data = pictures.saved(image, "JPEG", quality=95, subsampling=0)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(shown(data) - expected).max() <= 1
    assert np.abs(shown(pictures.saved(image, "TIFF")) - np.asarray(image.convert("RGB")).astype(int)).max() <= 1


@needs_avif
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned(orientation):
    data = pictures.saved(pictures.RGB, "AVIF", quality=100, subsampling="4:4:4", exif=pictures.exif(orientation))
    expected = pictures.oriented(pictures.RGB, orientation)
    found = shown(data)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 4
    assert np.abs(found.astype(int) - expected).mean() < 1


@needs_avif
def test_avif_of_10_bits_and_transparent():
    options = [cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_QUALITY, 100]
    data = cv2.imencode(".avif", np.ascontiguousarray(pictures.DEEP[..., ::-1] >> 6), options)[1].tobytes()
    assert np.abs(shown(data).astype(int) - pictures.rounded(pictures.DEEP >> 6, 1023)).max() <= 4
    data = pictures.saved(pictures.RGBA, "AVIF", quality=100, subsampling="4:4:4")
    difference = np.abs(shown(data).astype(int) - pictures.on_white(pictures.RGB, pictures.ALPHA))
    assert difference.max() <= 6 and difference.mean() < 1


def test_avif_without_a_decoder_says_so(monkeypatch):
    data = pictures.saved(pictures.RGB, "AVIF")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    monkeypatch.setattr(cv2, "haveImageWriter", lambda _: False)
    with pytest.raises(InputError, match=r"(?s)this OpenCV does not read.*4\.12"):
        decode(data, "a.avif")


def float_tiff() -> bytes:
    return pictures.tiff(pictures.RGB.astype(np.float32), 2, t339=3)


REFUSED = {
    "a GIF": lambda: pictures.saved(Image.fromarray(pictures.RGB).quantize(8), "GIF"),
    "a HEIC file": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "floating-point values": float_tiff,
    "32 . 32 . 32 bits": lambda: pictures.tiff(pictures.RGB.astype(np.uint32), 2),
    "LAB colours": lambda: pictures.saved(Image.fromarray(pictures.RGB).convert("LAB"), "TIFF"),
    "2 channels": lambda: pictures.tiff(np.dstack([pictures.GREY, pictures.ALPHA]), 1, t338=2),
    "a camera's raw data": lambda: pictures.tiff(pictures.RGB, 2, t50706=1),
    "a reduced preview": lambda: pictures.tiff(pictures.RGB, 2, t254=1),
    "16 bits per channel in other": lambda: pictures.tiff(pictures.DEEP[..., 0], 0),
    "a PAM file": lambda: b"P7\nWIDTH 1\nHEIGHT 1\n",
    "a BigTIFF": lambda: b"II+\0\x08\0\0\0",
    "12 bits per channel": lambda: b"\xff\xd8\xff\xc0\0\x11\x0c" + bytes(14) + b"\xff\xda\0\2\xff\xd9",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_read_is_named(what):
    with pytest.raises(InputError, match=rf"(?s)^The image some\.file is of a kind that is not read.*{what}.*Remedy"):
        decode(REFUSED[what](), "some.file")


WHOLE = [
    "colour.png",
    "deep.png",
    "turned6.webp",
    "colour.bmp",
    "grey.tif",
    "packed.tif",
    "colour.jp2",
    "colour.ppm",
    "animated-False.png",
    "usual.jpg",
    "progressive.jpg",
]


@pytest.mark.parametrize("name", WHOLE)
def test_half_a_file_is_refused(name):
    data = {**EXACT, **PHOTOGRAPHS}[name][0]
    for share in (0.05, 0.3, 0.6, 0.9, 0.99):
        with pytest.raises(InputError, match="half"):
            decode(data[: int(len(data) * share)], "half")


def test_a_changed_byte_of_a_png_is_seen():
    data = bytearray(EXACT["colour.png"][0])
    data[len(data) // 2] ^= 0x5A
    with pytest.raises(InputError, match="wrong checksum of the chunk 'IDAT'"):
        decode(bytes(data), "it")


def avif_of_depth(bits: int) -> bytes:
    data = bytearray(pictures.saved(pictures.RGB, "AVIF").replace(b"av1C", b"free"))  # which says it once more
    at = data.index(b"pixi") + 9
    assert data[at] == 8
    data[at] = bits
    return bytes(data)


@pytest.mark.parametrize(
    "make, bits",
    [
        (pictures.png_of_depth, 0),
        (pictures.png_of_depth, 3),
        (pictures.png_of_depth, 255),
        (avif_of_depth, 0),
        (avif_of_depth, 200),
    ],
)
def test_a_depth_that_there_is_not_is_damage(make, bits):
    with pytest.raises(InputError, match=rf"(?s)damaged or not complete.*{bits} bits per channel.*Remedy"):
        decode(make(bits), "it")


@pytest.mark.parametrize("error", [ZeroDivisionError, OverflowError, ValueError, KeyError, IndexError, struct.error])
def test_whatever_a_header_makes_of_the_arithmetic_is_damage(monkeypatch, error):
    def fail(data: bytes) -> None:
        raise error("hostile")

    monkeypatch.setattr(formats.png, "read_header", fail)
    with pytest.raises(InputError, match="damaged or not complete"):
        decode(EXACT["colour.png"][0], "it")


HEADS = ["one-grey-transparent.png", "turned6.webp", "grey.tif", "colour.jp2", "colour.ppm", "colour.bmp", "usual.jpg"]


@pytest.mark.parametrize("name", HEADS)
def test_headers_of_any_numbers_are_read_or_refused(name):
    """Also where a PNG's checksums fit what was changed."""
    whole = {**EXACT, **PHOTOGRAPHS}[name][0]
    for at in range(2, min(len(whole), 120)):
        for value in (0, 1, 127, 255):
            data = bytearray(whole)
            data[at] = value
            if name.endswith(".png") and at < 29:
                data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
            with contextlib.suppress(formats.Incomplete, formats.Refused):
                formats.read_header(bytes(data))


def bomb(width: int, height: int) -> bytes:
    data = bytearray(pictures.png(np.zeros((1, 1, 3)), 2, 8))
    data[8:33] = pictures.chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return bytes(data)


def test_size_is_looked_at_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)  # would fail
    with pytest.raises(TooLargeError, match=r"(?s)268 megapixels.*100000 x 100000"):
        decode(bomb(100_000, 100_000), "it")
    with pytest.raises(TooLargeError, match="50 megapixels"):
        read_photo(bomb(10_000, 5_001))
    with pytest.raises(InputError, match=r"empty \(0 x 5\)"):
        decode(bomb(5, 0), "it")
    for name in ("turned6.webp", "grey.tif", "colour.jp2", "colour.bmp", "colour.ppm", "usual.jpg"):
        with pytest.raises(TooLargeError):
            decode({**EXACT, **PHOTOGRAPHS}[name][0], name, max_pixels=1000)


def test_photographs_of_strangers_are_of_three_formats_and_reduced():
    with pytest.raises(InputError, match=r"(?s)not a JPEG, PNG, WebP file.*BMP"):
        read_photo(EXACT["colour.bmp"][0])
    wide = pictures.saved(np.zeros((10, 2 * MAX_SIDE, 3), np.uint8), "PNG")
    assert read_photo(wide).shape == (5, MAX_SIDE, 3)


def test_orientation_of_damaged_exif_is_1():
    from cast_sdk.decoding.orientation import exif_orientation

    good = pictures.exif(6).tobytes()
    assert exif_orientation(good) == 6
    for bad in (b"", good[:9], good[:20], b"Exif\0\0XX*\0" + good[10:], good.replace(b"\6\0", b"\x20\0")):
        assert exif_orientation(bad) == 1
    assert exif_orientation(b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x08\0\0") == 8
    assert exif_orientation(b"II*\0\xff\xff\xff\xff" + b"\xff" * 60) == 1
