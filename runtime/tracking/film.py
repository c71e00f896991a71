"""The frames of one film in order: where a scene ends, and superpixels that go on from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from cast_sdk.runtime.preprocess import Prepared
from cast_sdk.runtime.tracking import compiled
from cast_sdk.spec import SuperpixelSettings
from cast_sdk.system.opencv import import_cv2

_PASSES = 4
_PATCHES = 28  # a side; the mean of a patch hardly knows noise and small motion
_CHANGED = 30  # of 255 in any channel: a patch has changed
# Measured (docs/camera.md): pans of 48 pixels a frame and a car's camera at one frame a second change up to 0.68 of the
# patches and, but for 1 in 100, 0.3 of the colours; cuts between photographs 0.63 and 0.45 or more, but for 1 in 20.
_CUT_PLACES, _CUT_COLOURS = 0.5, 0.3  # shares from which a frame begins a new scene
_WORN_SMALL, _WORN_LARGE = 1 / 16, 6.0  # of the mean area
_WORN = 0.1  # share of superpixels beyond either bound from which they begin anew


class Film:
    """Adds superpixels to the frames of one film; not for two threads at a time.

    Args:
        settings: of the model.
        go_on: start each frame's superpixels from the frame before's, except where a scene begins or where they are
            worn out: a tenth of them has less than a sixteenth or more than six times of the mean area.
    """

    def __init__(self, settings: SuperpixelSettings, *, go_on: bool) -> None:
        self.settings, self.go_on = settings, go_on
        self.scene = self.restarts = 0
        self._look: Look | None = None
        self._labels: npt.NDArray[np.int32] | None = None

    def add(self, prepared: Prepared) -> None:
        """Set `superpixels` and `scene` of the next frame."""
        from cast_sdk.superpixels import superpixels_after, superpixels_for

        self.look(prepared)
        labels = self._labels
        if self.go_on and labels is not None and labels.shape == prepared.image.shape[:2]:
            labels = superpixels_after(prepared.image, labels, self.settings, _PASSES)
            if worn(labels):
                self.restarts, labels = self.restarts + 1, None
        else:
            labels = None
        if labels is None:
            labels = superpixels_for(prepared.image, self.settings)
        self._labels = prepared.superpixels = labels

    def look(self, prepared: Prepared) -> None:
        """Set `scene` of the next frame alone."""
        look = Look.at(prepared.image)
        if self._look is not None and is_cut(look, self._look):
            self.scene, self._labels = self.scene + 1, None
        self._look, prepared.scene = look, self.scene


@dataclass(frozen=True)
class Look:
    """What decides about cuts.

    Attributes:
        image: uint8 [h, w, 3].
        colours: float64 [512], the share of each colour, in 8 x 8 x 8 bins.
    """

    image: npt.NDArray[np.uint8]
    colours: npt.NDArray[np.float64]

    @classmethod
    def at(cls, image: npt.NDArray[np.uint8]) -> Look:
        """The look of an image, uint8 [h, w, 3]."""
        counts = compiled.colours(image) if compiled.available() else colours(image)
        return cls(image, counts / int(counts.sum()))

    def patches(self) -> npt.NDArray[np.int16]:
        """The image in small: int16 [28, 28, 3]."""
        cv2 = import_cv2()
        small = cv2.resize(self.image, (_PATCHES, _PATCHES), interpolation=cv2.INTER_AREA)
        return cast("npt.NDArray[np.int16]", small.astype(np.int16))


def is_cut(now: Look, before: Look) -> bool:
    """Whether two frames show different scenes: most places have changed, and so have the colours.

    A fast pan changes places but hardly colours. A lamp that is switched on changes both, and counts as a cut.
    """
    if np.abs(now.colours - before.colours).sum() / 2 <= _CUT_COLOURS:
        return False
    changed = np.abs(now.patches() - before.patches()).max(-1) > _CHANGED
    return bool(changed.mean() > _CUT_PLACES)


def worn(labels: npt.NDArray[np.int32]) -> bool:
    """Whether too many superpixels have been squeezed or stretched by motion in one direction."""
    count = int(labels.max()) + 1
    mean = labels.size / count
    counted = compiled.beyond if compiled.available() else beyond
    return counted(labels, count, _WORN_SMALL * mean, _WORN_LARGE * mean) / count > _WORN


def colours(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Of every second pixel in both directions the colour, in 8 x 8 x 8 bins: int64 [512] from uint8 [h, w, 3]."""
    bins = (image[::2, ::2] >> 5).astype(np.int32) @ np.array([64, 8, 1], np.int32)
    return np.bincount(bins.ravel(), minlength=512)


def beyond(labels: npt.NDArray[np.int32], count: int, low: float, high: float) -> int:
    """How many of the labels 0..count-1 have fewer pixels than `low` or more than `high`."""
    areas = np.bincount(labels.ravel(), minlength=count)
    return int(np.count_nonzero((areas < low) | (areas > high)))
