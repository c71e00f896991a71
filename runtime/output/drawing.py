"""Pictures of a result: coloured overlays with boundaries, levels side by side, captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import numpy.typing as npt

from cast_sdk.arguments import real, shown
from cast_sdk.errors import InputError
from cast_sdk.runtime.output.colours import class_colours, segment_colours
from cast_sdk.runtime.preprocess import Geometry
from cast_sdk.runtime.taxonomy import path_text
from cast_sdk.system.opencv import import_cv2

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation

Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]
Layer = int | Literal["semantic"]

_LAYERS = (int, np.integer, str, Sequence, np.ndarray, type(None))
_GAP = 6  # pixels between tiles
_PAPER = (255, 255, 255)
_TILE = 640  # longest side of a tile when several stand side by side


def draw(
    result: Segmentation,
    level: Layer | Sequence[Layer] | None = None,
    *,
    alpha: float = 0.55,
    boundaries: bool = True,
    caption: bool = True,
) -> Image:
    """Picture of a result, uint8 BGR.

    Args:
        result: a result that still has its frame.
        level: a level or "semantic": one overlay at the frame's size. A sequence of them: tiles side by side. None: the
            frame, the class map of a dense head, and all levels.
        alpha: opacity of the fills, 0..1.
        boundaries: draw the outlines of the segments, heavier where a coarser segment ends too.
        caption: write the class and the level's number of segments.

    Raises:
        InputError: for an unknown level, or when the result has no frame.
    """
    if result.frame is None:
        raise InputError("The result has no frame to draw on.", found="frame=None", remedy="set result.frame again")
    real(alpha, "alpha", 0, 1)
    if (isinstance(level, (str, bytes)) and level != "semantic") or not isinstance(level, _LAYERS):
        raise InputError(
            f"There is no level {shown(level)}.", remedy='give a number, "semantic", a sequence of them, or None'
        )
    if isinstance(level, (int, np.integer, str)):
        return _tile(result, level, result.frame, alpha, boundaries, caption)
    frame = _limit(result.frame, _TILE)
    if level is None:
        layers: list[Layer] = ["semantic"] if "semantic" in result.outputs else []
        layers += range(result.num_levels + 1) if result.hierarchy else []
        tiles = [_titled(frame.copy(), _class_caption(result) if caption else "")]
    else:
        layers, tiles = list(level), []
        if not layers:
            raise InputError("There is no level to draw.", remedy="name at least one")
    tiles += [_tile(result, layer, frame, alpha, boundaries, caption, with_class=False) for layer in layers]
    return mosaic(tiles)


def overlay(
    frame: Image,
    labels: Labels,
    colours: npt.NDArray[np.uint8],
    *,
    alpha: float = 0.55,
    boundaries: bool = True,
    coarse: Labels | None = None,
) -> Image:
    """A frame with coloured segments.

    Args:
        frame: uint8 [h, w, 3] BGR.
        labels: int32 [h, w]; negative: outside, darkened.
        colours: uint8 [n, 3] BGR by label.
        alpha: opacity of the fills.
        boundaries: draw outlines at all.
        coarse: labels of a coarser level, [h, w]: outlines are heavy where it ends too and light elsewhere. None: all
            are heavy.
    """
    cv2 = import_cv2()
    outside = labels < 0
    # A paler, greyer picture below lets the fills keep their own colour.
    frame = np.ascontiguousarray(frame)
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    base = cv2.addWeighted(frame, 0.35, grey, 0.65, 12)
    out = cv2.addWeighted(colours.take(np.maximum(labels, 0), 0), alpha, base, 1 - alpha, 0)
    if outside.any():
        out[outside] = frame[outside] // 3
    if boundaries:
        ink = _edges(labels) * np.uint8(217 if coarse is None else 115)
        if coarse is not None:
            ink[_edges(coarse)] = 217
        if (width := round(max(labels.shape) / 800)) > 1:
            ink = cv2.dilate(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
        # The blur softens the steps of a line; the gain gives its core back what that takes.
        ink = cv2.convertScaleAbs(cv2.GaussianBlur(ink, (3, 3), 0.6), alpha=1.25)
        out = cv2.add(out, cv2.multiply(255 - out, cv2.cvtColor(ink, cv2.COLOR_GRAY2BGR), scale=1 / 255))
    return cast(Image, out)


def mosaic(tiles: Sequence[Image]) -> Image:
    """Tiles of one size in rows, as near to a 16:9 page as their number allows."""
    height, width = tiles[0].shape[:2]
    columns = min(
        range(1, len(tiles) + 1),
        key=lambda n: (
            -(-len(tiles) // n) * n - len(tiles),
            abs(np.log(n * width / (-(-len(tiles) // n) * height) / 1.78)),
        ),
    )
    rows = -(-len(tiles) // columns)
    page = np.empty((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), np.uint8)
    page[:] = _PAPER
    for index, tile in enumerate(tiles):
        y, x = index // columns * (height + _GAP), index % columns * (width + _GAP)
        page[y : y + height, x : x + width] = tile
    return page


# Pixels of the longer side that a format can hold.
_MAX_SIDE = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500, ".jpe": 65500}


def encode(image: Image, suffix: str) -> bytes:
    """Compress a picture for a file with this suffix.

    Raises:
        InputError: for a format that OpenCV does not write.
    """
    cv2 = import_cv2()
    longest = max(image.shape[:2])
    limit = _MAX_SIDE.get(suffix.lower())
    if limit is not None and longest > limit:
        raise InputError(
            f"A picture of {image.shape[1]} x {image.shape[0]} pixels is too large for {suffix}, which takes {limit}.",
            remedy="name the file .png, which has no such limit",
        )
    try:
        done, data = cv2.imencode(suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise InputError(
            f"OpenCV cannot write a picture with the suffix {suffix!r}.",
            remedy="name the file .png, .jpg or .webp, or .json for the data",
        )
    return bytes(data)


def _tile(
    result: Segmentation,
    layer: Layer,
    frame: Image,
    alpha: float,
    boundaries: bool,
    caption: bool,
    with_class: bool = True,
) -> Image:
    size = (frame.shape[0], frame.shape[1])
    if layer == "semantic":
        classes = result.semantic
        if classes is None:
            raise InputError(
                f"{result.spec.name} has no dense head, so there is no class map to draw.", remedy="choose a level"
            )
        colours = (
            np.array(result.spec.palette, np.uint8)[:, ::-1]
            if result.spec.palette
            else class_colours(max(result.spec.num_classes, int(classes.max()) + 1))
        )
        picture = overlay(frame, _smooth(classes, size, result.geometry), colours, alpha=alpha, boundaries=boundaries)
        return _titled(picture, "classes" if caption else "")
    labels = _smooth(result.labels(layer), size, result.geometry)
    hierarchy = result.hierarchy
    assert hierarchy is not None  # labels() has raised otherwise
    colours = segment_colours(result)[layer]
    coarse = None
    if layer < result.num_levels:
        coarse = np.where(labels < 0, -1, hierarchy.ancestors(layer, result.num_levels)[labels])
    picture = overlay(frame, labels, colours, alpha=alpha, boundaries=boundaries, coarse=coarse)
    title = (
        f"level {layer}: {result.num_segments(layer)} segments" if layer else f"{result.num_segments(0)} superpixels"
    )
    name = _class_caption(result) if with_class else ""
    if name:
        title = f"{title}   {name}" if result.unsure else f"{name}   {title}"
    return _titled(picture, title if caption else "")


def _class_caption(result: Segmentation) -> str:
    return path_text(result) if result.spec.taxonomy and not result.unsure else result.verdict


def _smooth(labels: Labels, size: tuple[int, int], geometry: Geometry) -> Labels:
    """The label map at `size` with the staircase of its enlargement rounded off.

    A median over a window of about two enlarged pixels: between two segments that is their majority.
    """
    cv2 = import_cv2()
    if labels.shape != size:
        labels = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    shifted = labels + 1
    few = int(shifted.max()) < 256
    enlargement = min(max(size[0] / geometry.resized[0], size[1] / geometry.resized[1]), 15)
    window = 2 * round(enlargement) + 1
    small = shifted.astype(np.uint8 if few else np.uint16)
    return cast(Labels, cv2.medianBlur(small, window if few else min(window, 5)).astype(np.int32) - 1)


def _edges(labels: Labels) -> npt.NDArray[np.bool_]:
    """Pixels whose label differs from their left or upper neighbour's."""
    edges = np.zeros(labels.shape, bool)
    edges[:, 1:] = labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    return edges


def _titled(picture: Image, text: str) -> Image:
    """Write a caption on a dark, rounded plate in the lower left corner, in place; shrunk until it fits."""
    cv2 = import_cv2()
    height, width = picture.shape[:2]
    if not text or min(height, width) < 48:
        return picture
    scale = float(np.clip(min(height, width) / 800, 0.42, 1.2))
    font, pad = cv2.FONT_HERSHEY_SIMPLEX, round(14 * scale)
    (text_width, text_height), baseline = cv2.getTextSize(text, font, scale, 1)
    room = width - 4 * pad
    if text_width > room:
        scale *= room / text_width
        (text_width, text_height), baseline = cv2.getTextSize(text, font, scale, 1)
    plate_height = text_height + baseline + pad
    left, top = pad, height - pad - plate_height
    right, bottom = min(left + text_width + 2 * pad, width - 1), height - pad
    if top < 0:
        return picture
    area = picture[top:bottom, left:right]
    mask = _rounded(bottom - top, right - left, plate_height // 2)[..., None] * np.float32(0.68)
    area[:] = np.round(area * (1 - mask) + np.float32(18) * mask).astype(np.uint8)
    origin = (left + pad, top + (plate_height + text_height) // 2 - baseline // 4)
    text = text.encode(errors="replace").decode()  # OpenCV crashes on text that is not UTF-8
    cv2.putText(picture, text, origin, font, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return picture


def _rounded(height: int, width: int, radius: int) -> npt.NDArray[np.float32]:
    """Coverage 0..1 of a rectangle with round corners: float32 [height, width]."""
    y = np.maximum(np.abs(np.arange(height) - (height - 1) / 2) - ((height - 1) / 2 - radius), 0)
    x = np.maximum(np.abs(np.arange(width) - (width - 1) / 2) - ((width - 1) / 2 - radius), 0)
    return np.clip(radius + 0.5 - np.hypot(y[:, None], x), 0, 1).astype(np.float32)


def _limit(image: Image, longest: int) -> Image:
    cv2 = import_cv2()
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cast(Image, cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA))
