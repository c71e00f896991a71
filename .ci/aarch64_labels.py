"""What the two architectures must agree on, stage by stage, on the bundled photographs.

python .ci/aarch64_labels.py write FILE.npz       (on the other architecture: what it computes)
python .ci/aarch64_labels.py compare FILE.npz     (on this one, with torch: every stage again, from the same inputs)

    resizing      pixels of a frame that is only cut are equal; where OpenCV averages, one in a thousand may be off by 1
    superpixels   equal bit for bit, of the same pixels
    network       scores within `ERROR`; labels equal, but for near ties by the rule of the exporter's verification: the
                  reference in float32 and float64 tells what rounding decides, and where that is
    result        the maps at the frame's size are those of the labels
"""

from __future__ import annotations

import copy
import platform
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk import Runtime, bundled, superpixels
from cast_sdk.errors import CastError
from cast_sdk.runtime.preprocess import Prepared
from cast_sdk.system.opencv import import_cv2

Arrays = dict[str, npt.NDArray[Any]]
ERROR = 1e-4  # of embedding and logits, relative to the largest magnitude
OFF_BY_ONE = 1e-3  # share of the bytes of a resized image
DECIDED = 0.75  # share of the label maps that near ties must leave, or the comparison shows too little
PHOTOS = 3  # emulated, a frame takes four seconds
LEVELS = range(5)
SETTINGS = ((196, 15, 20), (64, 5, 15), (49, 5, 15))  # superpixels, bins, passes


def frames() -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """BGR frames by name: a part of each photograph of the model's size, which is not resized, and the whole."""
    cv2 = import_cv2()
    for photo in bundled.photos()[:PHOTOS]:
        frame = cv2.imread(str(photo))
        yield f"{photo.stem} cut", np.ascontiguousarray(frame[: 2 * 96 : 2, : 2 * 96 : 2])
        yield f"{photo.stem} whole", frame


def measure(runtime: Runtime) -> Arrays:
    """Every stage of every frame, and superpixels by the settings of the published families."""
    assert superpixels.backend() == "native"
    found: Arrays = {}
    for name, frame in frames():
        prepared = runtime.add_superpixels(runtime.prepare(frame))
        outputs = runtime.infer([prepared])[0]
        result = runtime.finish(prepared, outputs)
        found |= {f"{name}/image": prepared.image, f"{name}/superpixels": prepared.superpixels}
        found |= {f"{name}/{output}": value for output, value in outputs.items()}
        found |= {f"{name}/map{level}": result.labels(level) for level in LEVELS}
        if name.endswith("whole"):
            for setting in SETTINGS:
                labels = superpixels.seeds(np.ascontiguousarray(frame[..., ::-1]), *setting)
                found[f"{name}/seeds {' '.join(map(str, setting))}"] = labels
    return found


def check_pixels(name: str, here: npt.NDArray[Any], there: npt.NDArray[Any]) -> list[str]:
    """What is wrong with the resized image of the other architecture: uint8 [H,W,3] each."""
    difference = np.abs(here.astype(int) - there)
    count, worst = int((difference > 0).sum()), int(difference.max())
    if count:
        print(f"{name}: OpenCV resizes to {count} other bytes of {difference.size}, by {worst} at most")
    allowed = OFF_BY_ONE * difference.size if name.endswith("whole") else 0
    return [f"{name}: the resized image"] if worst > 1 or count > allowed else []


def check_scores(name: str, here: Arrays, there: Arrays) -> list[str]:
    """Which of embedding and logits differ by more than rounding."""
    wrong = []
    for output in ("embedding", "logits"):
        error = float(np.abs(here[output] - there[output]).max() / np.abs(here[output]).max())
        if not error <= ERROR:
            wrong.append(f"{name}: {output} by {error:.1e}")
    return wrong


def check_labels(name: str, here: Arrays, there: Arrays, decided: list[npt.NDArray[np.bool_]]) -> list[str]:
    """Which levels differ in superpixels that are no near tie.

    Args:
        decided: per level, the superpixels whose label rounding cannot change: bool [S].
    """
    wrong = []
    for level, sure in enumerate(decided, 1):
        other = here[f"level{level}"] != there[f"level{level}"]
        if other.any():
            print(f"{name}: level {level} differs in {other.sum()} superpixels, {(other & ~sure).sum()} in near ties")
        if (other & sure).any():
            wrong.append(f"{name}: level {level}")
    return wrong


def rounding(runtime: Runtime, images: list[Prepared]) -> Iterator[list[npt.NDArray[np.bool_]]]:
    """Per image and level: the superpixels whose label rounding cannot change, bool [S]."""
    import torch

    from cast_sdk import load_model
    from cast_sdk.export.verification.photos import Inputs
    from cast_sdk.export.verification.verify import clear_labels, run_reference

    model = load_model(bundled.path(bundled.WEIGHTS))
    image, maps = (np.stack([getattr(item, part) for item in images]) for part in ("image", "superpixels"))
    inputs, count = Inputs(image, maps, ()), runtime.info.num_superpixels
    single = run_reference(model, runtime.spec, inputs, count)
    double = run_reference(copy.deepcopy(model).double(), runtime.spec, inputs, count, torch.float64)
    for expected, exact in zip(single, double, strict=True):
        yield [clear & sampling for sampling, clear in clear_labels(expected, exact)]


def compare(found: Arrays, runtime: Runtime) -> list[str]:
    """What differs from `found`, which the other architecture measured, and must not."""
    wrong: list[str] = []
    own = measure(runtime)
    if own.keys() != found.keys():
        return ["the names of what was measured"]
    images = []
    for name, frame in frames():
        prepared = runtime.prepare(frame)
        wrong += check_pixels(name, prepared.image, found[f"{name}/image"])
        prepared.image = found[f"{name}/image"]  # from here on the same pixels
        images.append(runtime.add_superpixels(prepared))
        if not np.array_equal(prepared.superpixels, found[f"{name}/superpixels"]):
            wrong.append(f"{name}: superpixels")
    decided = list(rounding(runtime, images))
    for (name, _), item, here, sure in zip(frames(), images, runtime.infer(images), decided, strict=True):
        there = {key.partition("/")[2]: value for key, value in found.items() if key.startswith(f"{name}/")}
        wrong += check_scores(name, here, there) + check_labels(name, here, there, sure)
        try:
            result = runtime.finish(item, {output: there[output] for output in here})
        except CastError as error:
            wrong.append(f"{name}: {error.problem}")
            continue
        wrong += [f"{name}: map {n}" for n in LEVELS if not np.array_equal(result.labels(n), there[f"map{n}"])]
    wrong += [key for key in own if "/seeds" in key and not np.array_equal(own[key], found[key])]
    maps = [key for key in own if "/seeds" in key or "/map" in key]
    equal = sum(np.array_equal(own[key], found[key]) for key in maps)
    share = float(np.mean([sure.all() for image in decided for sure in image]))
    print(f"{equal} of {len(maps)} label maps equal; {share:.0%} of the levels have no near tie")
    if share < DECIDED:
        wrong.append(f"more than {1 - DECIDED:.0%} of the levels have near ties")
    return wrong


def main() -> int:
    what, path = sys.argv[1:]
    with Runtime(threads=1) as runtime:
        if what == "write":
            found = measure(runtime)
            np.savez_compressed(path, **found)
            print(f"{platform.machine()}: {len(found)} arrays")
            return 0
        wrong = compare(dict(np.load(path)), runtime)
    for name in wrong:
        print(f"WRONG {name}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
