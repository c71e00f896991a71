"""What the two architectures must agree on: superpixels, segments and embeddings of the bundled photographs.

python .ci/aarch64_labels.py write FILE.npz
python .ci/aarch64_labels.py compare FILE.npz OTHER.npz
"""

from __future__ import annotations

import platform
import sys

import numpy as np

EMBEDDING = 1e-4  # largest difference of an embedding; labels are compared bit by bit
SETTINGS = ((196, 15, 20), (64, 5, 15), (49, 5, 15))  # superpixels, bins, passes


def measure() -> dict[str, np.ndarray]:
    import cv2

    import cast_sdk
    from cast_sdk import bundled, superpixels

    assert superpixels.backend() == "native"
    found: dict[str, np.ndarray] = {}
    photos = sorted(bundled.path("cast_tiny.onnx").parent.glob("photos/*.jpg"))
    runtime = cast_sdk.Runtime()
    for photo in photos[:3]:
        pixels = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
        for count, bins, passes in SETTINGS:
            found[f"{photo.stem} seeds {count} {bins} {passes}"] = superpixels.seeds(pixels, count, bins, passes)
        # At the model's size (no arithmetic), and as it is: OpenCV's resize may round a few bytes otherwise.
        frames = {"small": cv2.imread(str(photo))[: 2 * 96 : 2, : 2 * 96 : 2], "whole": cv2.imread(str(photo))}
        for name, frame in frames.items():
            result = runtime.segment(frame)
            for level in range(5):
                found[f"{photo.stem} {name} level {level}"] = result.labels(level)
            found[f"{photo.stem} {name} embedding"] = result.embedding
            found[f"{photo.stem} {name} resized"] = runtime.prepare(frame).image
    return found


def main() -> int:
    if sys.argv[1] == "write":
        found = measure()
        np.savez_compressed(sys.argv[2], **found)
        print(f"{platform.machine()}: {len(found)} arrays")
        return 0
    one, other = (np.load(path) for path in sys.argv[2:4])
    assert set(one.files) == set(other.files) and one.files
    unequal = {name for name in one.files if not np.array_equal(one[name], other[name])}
    resized = {name for name in unequal if name.endswith("resized")}
    for name in sorted(resized):
        difference = np.abs(one[name].astype(int) - other[name])
        print(f"{name}: OpenCV differs in {(difference > 0).sum()} of {difference.size} bytes, by {difference.max()}")
    # Where the pixels are the same, everything must be.
    excused = {name for name in unequal if f"{' '.join(name.split()[:2])} resized" in resized}
    bad = {name for name in unequal - resized - excused if not name.endswith("embedding")}
    worst = max(
        float(np.abs(one[name] - other[name]).max()) for name in set(one.files) - excused if name.endswith("embedding")
    )
    labels = [name for name in one.files if "level" in name or "seeds" in name]
    print(f"{len(set(labels) - unequal)} of {len(labels)} label maps equal; embeddings differ by {worst:.1e} at most")
    for name in sorted(set(labels) & unequal):
        said = "of another resized image" if name in excused else "WRONG"
        print(f"{name}: {(one[name] != other[name]).mean():.2%} of the pixels differ, {said}")
    return int(bool(bad) or worst > EMBEDDING)


if __name__ == "__main__":
    sys.exit(main())
