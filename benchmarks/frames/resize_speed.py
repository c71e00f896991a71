"""Time of resizing a frame to the model's size, one thread: `python benchmarks/frames/resize_speed.py`.

The compiled function, NumPy's (an installation without the kernel) and OpenCV's area averaging with its change of the
channels' order take turns. Milliseconds, median (least) of `--rounds`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from unittest import mock

import cv2
import numpy as np

from cast_sdk.runtime import resample
from cast_sdk.runtime.preprocess import fit_geometry, resize

CASES = (((480, 640), 128), ((1080, 1920), 128), ((2160, 3840), 224))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    for shape, side in CASES:
        frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        whole, crop = (fit_geometry(shape, (side, side), fit) for fit in ("stretch", "crop"))

        def numpy(frame=frame, whole=whole):
            with mock.patch.object(resample, "_library", lambda: None):
                return resize(frame, whole)

        def opencv(frame=frame, side=side):
            return cv2.cvtColor(cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)

        ways = {
            "compiled": lambda frame=frame, whole=whole: resize(frame, whole),
            "compiled, crop": lambda frame=frame, crop=crop: resize(frame, crop),
            "NumPy": numpy,
            "OpenCV, area": opencv,
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                times[name].append((time.perf_counter() - start) * 1e3)
        told = ", ".join(f"{name} {statistics.median(t):.2f} ({min(t):.2f})" for name, t in times.items())
        print(f"{shape[1]} x {shape[0]} to {side}: {told}")


if __name__ == "__main__":
    main()
