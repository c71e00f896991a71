"""SEEDS: this package's kernel against OpenCV's, on one thread, in one process, image by image in turn.

    pip install --no-deps --target build/opencv-contrib "opencv-contrib-python>=5"
    PYTHONPATH=build/opencv-contrib python benchmarks/seeds_speed.py FOLDER_OF_PHOTOGRAPHS [--images 60]

Time is that of the thread alone, so that other programs count little. Colour conversion is in neither column.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from cast_sdk.superpixels.kernels import NativeKernel, OpenCVKernel

CASES = ((224, 196), (512, 1024), (256, 1024), (480, 900), (96, 64))
RECIPES = ((15, 20), (5, 15))


def milliseconds(kernel: NativeKernel | OpenCVKernel, lab: np.ndarray, labels: np.ndarray) -> float:
    start = time.thread_time()
    kernel(lab, labels)
    return 1e3 * (time.thread_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="photographs (*.jpg, also in subfolders)")
    parser.add_argument("--images", type=int, default=60)
    arguments = parser.parse_args()
    if not hasattr(cv2, "ximgproc"):
        sys.exit("This OpenCV has no cv2.ximgproc: set PYTHONPATH as the first lines of this script say.")
    cv2.setNumThreads(1)
    paths = sorted(arguments.folder.rglob("*.jpg"))
    paths = paths[:: max(1, len(paths) // arguments.images)][: arguments.images]
    print(f"{platform.machine()}, Python {platform.python_version()}, OpenCV {cv2.__version__}, {len(paths)} images")
    print(
        "| pixels / superpixels | bins, iterations | OpenCV ms: median (min) | ours ms: median (min) | times faster |"
    )
    print("|---|---|---|---|---|")
    for size, count in CASES:
        for bins, iterations in RECIPES:
            kernels = [kind(size, size, count, bins, iterations) for kind in (OpenCVKernel, NativeKernel)]
            labels = [np.empty((size, size), np.int32) for _ in kernels]
            times = []
            for path in paths:
                image = cv2.imread(str(path))
                if image is None:
                    sys.exit(f"not readable as an image: {path}")
                image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
                lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
                times.append([milliseconds(kernel, lab, out) for kernel, out in zip(kernels, labels, strict=True)])
                if not np.array_equal(labels[0], labels[1]):
                    sys.exit(f"labels differ: {path}, {size} pixels, {count} superpixels, {bins} bins")
            opencv, ours = np.array(times).T
            print(
                f"| {size} / {count} | {bins}, {iterations} | {np.median(opencv):.2f} ({opencv.min():.2f}) "
                f"| {np.median(ours):.2f} ({ours.min():.2f}) | {np.median(opencv / ours):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
