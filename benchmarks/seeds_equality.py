"""SEEDS: every label of this package's kernel against OpenCV's, over folders of photographs.

    pip install --no-deps --target build/opencv-contrib "opencv-contrib-python>=5"
    PYTHONPATH=build/opencv-contrib python benchmarks/seeds_equality.py FOLDER [FOLDER ...] [--images 300]

Each image at its own size (196 superpixels, and one per 256 pixels) and at the sizes of the recipes, with both pairs
of bins and iterations. Exits with 1 when any label differs.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import cv2
import numpy as np

from cast_sdk.superpixels.kernels import Kernel, NativeKernel, OpenCVKernel

SQUARES = ((224, 196), (512, 1024), (256, 1024), (480, 900))
RECIPES = ((15, 20), (5, 15))


@functools.lru_cache(maxsize=32)
def kernels(height: int, width: int, count: int, bins: int, iterations: int) -> tuple[Kernel, Kernel]:
    settings = (height, width, count, bins, iterations)
    return OpenCVKernel(*settings), NativeKernel(*settings)


def different_pixels(lab: np.ndarray, count: int, bins: int, iterations: int) -> int:
    maps = [np.empty(lab.shape[:2], np.int32) for _ in range(2)]
    for kernel, labels in zip(kernels(*lab.shape[:2], count, bins, iterations), maps, strict=True):
        kernel(lab, labels)
    return int((maps[0] != maps[1]).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="photographs (*.jpg, also in subfolders)")
    parser.add_argument("--images", type=int, help="at most so many of each folder, evenly spread")
    arguments = parser.parse_args()
    if not hasattr(cv2, "ximgproc"):
        sys.exit("This OpenCV has no cv2.ximgproc: set PYTHONPATH as the first lines of this script say.")
    compared: dict[str, int] = {}
    failed: dict[str, list[str]] = {}
    for folder in arguments.folders:
        paths = sorted(folder.rglob("*.jpg"))
        for path in paths[:: max(1, len(paths) // (arguments.images or len(paths)))][: arguments.images]:
            image = cv2.imread(str(path))
            if image is None:
                sys.exit(f"not readable as an image: {path}")
            own = (image.shape[1], image.shape[0])
            cases = [(f"{size} / {count}", (size, size), count) for size, count in SQUARES]
            cases += [("own size / 196", own, 196), ("own size / H*W/256", own, own[0] * own[1] // 256)]
            for name, size, count in cases:
                resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                lab = cv2.cvtColor(resized, cv2.COLOR_BGR2LAB)
                for bins, iterations in RECIPES:
                    case = f"{name}, {bins} bins, {iterations} iterations"
                    compared[case] = compared.get(case, 0) + 1
                    pixels = different_pixels(lab, count, bins, iterations)
                    if pixels:
                        failed.setdefault(case, []).append(f"{path} ({pixels} pixels)")
    for case, number in compared.items():
        print(
            f"{case}: {number - len(failed.get(case, []))} of {number} images equal", *failed.get(case, []), sep="\n  "
        )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
