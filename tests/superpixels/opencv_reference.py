"""OpenCV's own SEEDS, in a process of its own: its contrib module cannot live beside opencv-python.

CAST_SDK_OPENCV_CONTRIB names the folder of an `opencv-contrib-python` (5.0 or later); `make test` puts it in place.
"""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

VARIABLE = "CAST_SDK_OPENCV_CONTRIB"


class OpenCVReference:
    """Send LAB images, receive label maps."""

    def __init__(self, folder: str) -> None:
        path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )

    def labels(self, lab: np.ndarray, count: int, bins: int, iterations: int) -> np.ndarray:
        pickle.dump((lab, count, bins, iterations), self.process.stdin)
        self.process.stdin.flush()
        return pickle.load(self.process.stdout)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def reference_from_environment() -> OpenCVReference:
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"OpenCV's contrib module to compare with is not here: `make test` installs it and sets {VARIABLE}")
    return OpenCVReference(folder)


def serve() -> None:
    import cv2

    @functools.lru_cache(maxsize=8)
    def create(height, width, count, bins):
        return cv2.ximgproc.createSuperpixelSEEDS(width, height, 3, count, 1, 2, bins, False)

    while True:
        try:
            lab, count, bins, iterations = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        seeds = create(*lab.shape[:2], count, bins)
        seeds.iterate(lab, iterations)
        pickle.dump(seeds.getLabels(), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
