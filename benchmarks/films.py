"""Films made from photographs, with the true motion of every pixel: a pan, a zoom, a moving cut-out, a noisy still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

Image = np.ndarray
SIZE = (480, 640)  # height, width of the frames
NOISE = 2.0  # standard deviation of what the camera adds, of 255


@dataclass
class Shot:
    """One frame and, for each of its pixels, where that was in the frame before.

    `before` is int32 [2, h, w], row and column; -1 where the pixel was hidden or outside. None for the first frame.
    """

    frame: Image
    before: Image | None


def covering(photo: Image, height: int, width: int) -> Image:
    """The photograph enlarged or reduced to cover height x width, its middle cut out."""
    scale = max(height / photo.shape[0], width / photo.shape[1])
    size = (max(width, round(photo.shape[1] * scale)), max(height, round(photo.shape[0] * scale)))
    large = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width])


def moved(photo: Image, placement: Callable[[int], Image], count: int, *, noise: float = NOISE) -> Iterator[Shot]:
    """A film of one photograph. `placement(t)`: the 2 x 3 matrix from a pixel (x, y) of frame t into the photograph."""
    rng = np.random.default_rng(0)
    height, width = SIZE
    grid = np.stack([*np.meshgrid(np.arange(width), np.arange(height)), np.ones(SIZE)], axis=-1)
    for t in range(count):
        now = placement(t)
        picture = cv2.warpAffine(
            photo, now, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
        )
        before = None
        if t:
            back = cv2.invertAffineTransform(placement(t - 1)) @ np.vstack([now, [0, 0, 1]])
            before = _rounded(grid @ back.T)
        yield Shot(_noisy(picture, noise, rng), before)


def still(photo: Image, count: int) -> Iterator[Shot]:
    """Nothing moves but the noise."""
    return moved(covering(photo, *SIZE), lambda t: np.array([[1.0, 0, 0], [0, 1, 0]]), count)


def pan(photo: Image, count: int, speed: float = 2.0) -> Iterator[Shot]:
    """The camera turns to the right, `speed` pixels a frame."""
    height, width = SIZE
    wide = covering(photo, height, round(width + speed * count))
    return moved(wide, lambda t: np.array([[1.0, 0, speed * t], [0, 1, 0]]), count)


def zoom(photo: Image, count: int, speed: float = 2.0) -> Iterator[Shot]:
    """The camera comes nearer: `speed` pixels a frame at the left and right edges."""
    height, width = SIZE
    large = covering(photo, height, width)

    def placement(t: int) -> Image:
        scale = (1 - 2 * speed / width) ** t
        return np.array([[scale, 0, (1 - scale) * (width - 1) / 2], [0, scale, (1 - scale) * (height - 1) / 2]])

    return moved(large, placement, count)


def cutout(photo: Image, other: Image, count: int, speed: float = 2.0, *, noise: float = NOISE) -> Iterator[Shot]:
    """An oval of one photograph crosses another one, `speed` pixels a frame."""
    rng = np.random.default_rng(0)
    height, width = SIZE
    ground = covering(photo, height, width)
    piece = covering(other, 200, 240)
    mask = np.zeros(piece.shape[:2], np.uint8)
    cv2.ellipse(mask, (120, 100), (118, 98), 0, 0, 360, 1, -1)
    y, x = np.mgrid[:height, :width]
    owner_before = np.zeros(SIZE, np.uint8)
    for t in range(count):
        left, top = round(60 + speed * t), 140
        frame, owner = ground.copy(), np.zeros(SIZE, np.uint8)
        inside = slice(top, top + 200), slice(left, left + 240)
        frame[inside][mask > 0] = piece[mask > 0]
        owner[inside] = mask
        before = None
        if t:
            before = np.stack([y, x]).astype(np.int32)
            before[1] -= np.where(owner > 0, left - round(60 + speed * (t - 1)), 0).astype(np.int32)
            before[:, owner_before[before[0], before[1]] != owner] = -1
        owner_before = owner
        yield Shot(_noisy(frame, noise, rng), before)


def estimated(frames: Iterator[Image]) -> Iterator[Shot]:
    """A real film: the motion is an estimate (DIS optical flow, there and back; -1 where the two disagree)."""
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    last = None
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        before = None
        if last is not None:
            back, there = flow.calc(grey, last, None), flow.calc(last, grey, None)
            height, width = grey.shape
            grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
            before = _rounded(grid + back)
            known = before[0] >= 0
            home = np.zeros_like(back)
            home[known] = there[before[0][known], before[1][known]]
            before[:, ~known | (np.abs(back + home).max(-1) > 1.5)] = -1
        last = grey
        yield Shot(frame, before)


def _rounded(places: Image) -> Image:
    """Rows and columns of (x, y) places [h, w, 2], -1 outside."""
    x, y = np.round(places[..., 0]).astype(np.int32), np.round(places[..., 1]).astype(np.int32)
    outside = (x < 0) | (y < 0) | (x >= x.shape[1]) | (y >= x.shape[0])
    before = np.stack([y, x])
    before[:, outside] = -1
    return before


def _noisy(picture: Image, noise: float, rng: np.random.Generator) -> Image:
    return np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).astype(np.uint8)
