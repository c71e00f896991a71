"""A moving synthetic scene (test://): a valley with balloons, a boat and a car, for machines without a camera."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.runtime.inputs.reading import Frame
from cast_sdk.runtime.sources.base import Source, SourceOptions, Status, adjusted
from cast_sdk.system.opencv import import_cv2

_BALLOONS = (  # phase, height in the picture, size, speed, two BGR colours
    (0.12, 0.24, 0.115, 1.0, (52, 64, 214), (236, 240, 245)),
    (0.58, 0.15, 0.075, 0.7, (60, 170, 242), (70, 60, 150)),
    (0.84, 0.33, 0.055, 1.4, (150, 130, 40), (190, 225, 240)),
)


class SceneSource(Source):
    """`test://`: paced at `rate` like a camera; with rate 0 every frame as fast as it is taken.

    Args:
        width, height: pixels.
        rate: frames per second.
        count: number of frames; 0: endless.
        light: brightness; 0 gives black frames.
        seed: another arrangement of the background.
    """

    def __init__(
        self,
        uri: str,
        options: SourceOptions,
        *,
        width: int = 640,
        height: int = 480,
        rate: float = 30.0,
        count: int = 0,
        light: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not (16 <= width <= 4096 and 16 <= height <= 4096):
            raise InputError(
                f"A test scene cannot have {width} x {height} pixels.", remedy="choose sides of 16 to 4096"
            )
        if not (0 <= rate <= 1000 and count >= 0 and 0 <= light <= 4):
            raise InputError(
                f"A test scene cannot have rate {rate:g}, count {count} and light {light:g}.",
                remedy="choose a rate of 0..1000, a count from 0 and a light of 0..4",
            )
        super().__init__(uri, options, live=rate > 0)
        self.rate, self.count, self.light = rate, count, light
        self._scene = Scene(width, height, seed)

    def frames(self) -> Iterator[Frame]:
        self.set_status(Status("live"))
        started = time.monotonic()
        index = 0
        while not self.stopping and (self.count == 0 or index < self.count):
            if self.rate:
                due = started + index / self.rate
                self.pause(due - time.monotonic())
                if time.monotonic() - due > 1.0:  # nobody took frames for a while
                    started = time.monotonic() - index / self.rate
            frame = self._scene.draw(index)
            if self.light != 1.0:
                frame = import_cv2().convertScaleAbs(frame, alpha=self.light)
            yield adjusted(frame, self.options, resize=False)
            index += 1


class Scene:
    """Draws frame `index`: uint8 [height, width, 3] BGR, the same for the same arguments."""

    def __init__(self, width: int, height: int, seed: int = 0) -> None:
        self.cv2: Any = import_cv2()
        self.width, self.height = width, height
        self._random = np.random.default_rng(seed)
        self.horizon = round(height * 0.58)
        self.background = self._background()

    def draw(self, index: int) -> npt.NDArray[np.uint8]:
        frame = self.background.copy()
        t = index / 30.0
        self._clouds(frame, t)
        self._boat(frame, t)
        self._car(frame, t)
        for balloon in _BALLOONS:
            self._balloon(frame, t, *balloon)
        return frame

    def _background(self) -> npt.NDArray[np.uint8]:
        cv2, w, h, horizon = self.cv2, self.width, self.height, self.horizon
        frame = np.empty((h, w, 3), np.uint8)
        frame[:horizon] = _gradient((196, 130, 70), (205, 214, 246), horizon)[:, None]
        frame[horizon:] = _gradient((172, 160, 120), (104, 78, 38), h - horizon)[:, None]
        sun = (round(w * 0.72), round(h * 0.40))
        for radius, colour in ((0.085, (196, 226, 250)), (0.06, (214, 242, 255))):
            cv2.circle(frame, sun, round(h * radius), colour, -1, cv2.LINE_AA)
        for base, rise, colour in (
            (0.582, 0.28, (168, 132, 108)),
            (0.582, 0.19, (128, 96, 76)),
            (0.60, 0.10, (84, 92, 58)),
        ):
            self._fill(frame, self._ridge(base, rise), colour)
        self._fill(frame, self._shore(), (66, 124, 88))
        road = [(0, 0.89), (1, 0.84), (1, 0.93), (0, 0.985)]
        self._fill(frame, self._points(road), (96, 92, 92))
        for left in np.arange(0.0, 1.0, 0.1):
            a, b = ((x, 0.9375 - 0.0525 * x) for x in (left + 0.02, left + 0.07))
            cv2.line(frame, *(tuple(p) for p in self._points([a, b])), (220, 226, 230), max(1, h // 160), cv2.LINE_AA)
        self._trees(frame)
        noise = self._random.normal(0, 5, (h, w, 1)) + self._random.normal(0, 2, (h, w, 3))
        return np.clip(frame + noise, 0, 255).astype(np.uint8)

    def _ridge(self, base: float, rise: float) -> npt.NDArray[np.int32]:
        x = np.linspace(0, 1, 96)
        waves = zip(self._random.uniform(0, 6.3, 5), (2.0, 4.6, 9.3, 19.0, 37.0), strict=True)
        y = sum(np.sin(x * f + p) / f for p, f in waves)
        y = (y - y.min()) / (y.max() - y.min() + 1e-9)
        return self._points([(0, base), *zip(x, base - rise * y, strict=True), (1, base)])

    def _shore(self) -> npt.NDArray[np.int32]:
        x = np.linspace(0, 1, 48)
        y = 0.80 - 0.05 * x + 0.012 * np.sin(9 * x + 1)
        return self._points([*zip(x, y, strict=True), (1, 1), (0, 1)])

    def _trees(self, frame: npt.NDArray[np.uint8]) -> None:
        for x in sorted(self._random.uniform(0.0, 1.0, 13)):
            size, y = self._random.uniform(0.035, 0.06), 0.83 - 0.05 * x
            trunk = [(x - 0.004, y), (x + 0.004, y), (x + 0.004, y - size), (x - 0.004, y - size)]
            self._fill(frame, self._points(trunk), (48, 62, 82))
            for step in range(3):
                top, half = y - size * (0.5 + 0.45 * step), size * (0.42 - 0.1 * step)
                crown = [(x - half, top), (x + half, top), (x, top - size * 0.8)]
                self._fill(frame, self._points(crown), (52 + 8 * step, 96 + 9 * step, 44 + 8 * step))

    def _clouds(self, frame: npt.NDArray[np.uint8], t: float) -> None:
        for number, (x, y, size) in enumerate(((0.1, 0.12, 0.05), (0.45, 0.07, 0.04), (0.8, 0.2, 0.035))):
            centre = (x + 0.008 * t * (1 + 0.3 * number)) % 1.3 - 0.15
            for dx, dy, part in ((-1.2, 0.2, 0.8), (0.0, 0.0, 1.15), (1.2, 0.15, 0.9), (2.1, 0.35, 0.55)):
                place = tuple(self._points([(centre + dx * size, y + dy * size)])[0])
                axes = (round(self.height * size * part * 1.3), round(self.height * size * part * 0.75))
                self.cv2.ellipse(frame, place, axes, 0, 0, 360, (243, 240, 236), -1, self.cv2.LINE_AA)

    def _balloon(
        self,
        frame: npt.NDArray[np.uint8],
        t: float,
        phase: float,
        level: float,
        size: float,
        speed: float,
        *colours: Any,
    ) -> None:
        cv2, h = self.cv2, self.height
        x = ((phase + 0.018 * speed * t) % 1.3 - 0.15) * self.width
        y = (level + 0.02 * math.sin(0.7 * t * speed + 6 * phase)) * h
        r = size * h
        centre = (round(x), round(y))
        cv2.ellipse(frame, centre, (round(r), round(r * 1.12)), 0, 0, 360, colours[0], -1, cv2.LINE_AA)
        for part in (0.62, 0.2):
            cv2.ellipse(
                frame, centre, (round(r * part), round(r * 1.12)), 0, 0, 360, colours[part < 0.5 or 1], -1, cv2.LINE_AA
            )
            if part > 0.5:
                cv2.ellipse(frame, centre, (round(r * 0.42), round(r * 1.12)), 0, 0, 360, colours[0], -1, cv2.LINE_AA)
        basket = [(-0.2, 1.42), (0.2, 1.42), (0.16, 1.66), (-0.16, 1.66)]
        points = np.array([(round(x + a * r), round(y + b * r)) for a, b in basket], np.int32)
        for side, corner in ((-0.5, 0), (0.5, 1)):
            top = (round(x + side * r), round(y + 0.95 * r))
            cv2.line(frame, top, tuple(int(v) for v in points[corner]), (70, 70, 80), max(1, h // 320), cv2.LINE_AA)
        self._fill(frame, points, (46, 84, 132))

    def _boat(self, frame: npt.NDArray[np.uint8], t: float) -> None:
        x, y, s = (0.35 - 0.02 * t) % 1.3 - 0.15, 0.635 + 0.004 * math.sin(1.7 * t), 0.075
        hull = [(x - s, y), (x + s, y), (x + 0.7 * s, y + 0.035), (x - 0.7 * s, y + 0.035)]
        self._fill(frame, self._points(hull), (40, 52, 150))
        self._fill(frame, self._points([(x, y - 0.01), (x, y - 0.2), (x + 0.85 * s, y - 0.01)]), (240, 240, 244))
        self._fill(
            frame,
            self._points([(x - 0.012, y - 0.01), (x - 0.012, y - 0.16), (x - 0.6 * s, y - 0.01)]),
            (205, 214, 228),
        )

    def _car(self, frame: npt.NDArray[np.uint8], t: float) -> None:
        x = (0.08 * t) % 1.4 - 0.2
        y, s = 0.925 - 0.0525 * x, 0.075
        body = [(x - s, y), (x + s, y), (x + s, y - 0.04), (x + 0.55 * s, y - 0.05), (x + 0.3 * s, y - 0.09)]
        self._fill(frame, self._points([*body, (x - 0.55 * s, y - 0.09), (x - 0.95 * s, y - 0.045)]), (42, 176, 238))
        glass = [
            (x - 0.5 * s, y - 0.048),
            (x + 0.42 * s, y - 0.048),
            (x + 0.24 * s, y - 0.082),
            (x - 0.45 * s, y - 0.082),
        ]
        self._fill(frame, self._points(glass), (92, 70, 52))
        for side in (-0.55, 0.55):
            wheel = tuple(int(v) for v in self._points([(x + side * s, y)])[0])
            self.cv2.circle(frame, wheel, round(self.height * 0.022), (34, 34, 36), -1, self.cv2.LINE_AA)
            self.cv2.circle(frame, wheel, round(self.height * 0.009), (170, 170, 174), -1, self.cv2.LINE_AA)

    def _points(self, relative: Any) -> npt.NDArray[np.int32]:
        return np.round(np.array(list(relative), float) * (self.width, self.height)).astype(np.int32)

    def _fill(self, frame: npt.NDArray[np.uint8], points: npt.NDArray[np.int32], colour: tuple[int, int, int]) -> None:
        self.cv2.fillPoly(frame, [points], colour, self.cv2.LINE_AA)


def _gradient(top: tuple[int, int, int], bottom: tuple[int, int, int], rows: int) -> npt.NDArray[np.uint8]:
    share = np.linspace(0.0, 1.0, rows)[:, None]
    return (np.array(top) * (1 - share) + np.array(bottom) * share).astype(np.uint8)
