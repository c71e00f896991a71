"""What the Runtime names photographs with each fit: `python benchmarks/training/fits.py PHOTOGRAPHS CLASSES [MODEL]`.

PHOTOGRAPHS is a folder of files named `..._WNID.jpg`, CLASSES the classes.txt of the model's data set. Those of classes
that the model does not know are left out. Prints of how many of the others the right class comes first, of how many it
is among the first five, how many are named, at the model's threshold, and the ten classes that most often come first
wrongly.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import cast_sdk
from cast_sdk.runtime.preprocess import FITS
from cast_sdk.training.calibrate import photograph_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("classes", type=Path)
    parser.add_argument("model", nargs="?")
    chosen = parser.parse_args()
    source = photograph_source(chosen.photographs, chosen.classes)
    known = [(name, label) for name, label in zip(source.names, source.labels.tolist(), strict=True) if label >= 0]
    count = len(known)
    for fit in FITS:
        first = five = named = right = 0
        wrong: Counter[str] = Counter()
        with cast_sdk.Runtime(chosen.model, fit=fit) as rt:
            for name, label in known:
                seg = rt.segment(name)
                best = [number for number, _, _ in seg.top(5)]
                if best[0] != label:
                    wrong[seg.top(1)[0][1]] += 1
                first, five = first + (best[0] == label), five + (label in best)
                named, right = named + (not seg.unsure), right + (not seg.unsure and best[0] == label)
        print(
            f"{fit}: {first} of {count}, {100 * first / count:.1f} %; among the first five {100 * five / count:.1f} %; "
            f"named {named}, right {right}"
        )
        print("  wrongly first:", ", ".join(f"{name} {times}" for name, times in wrong.most_common(10)))


if __name__ == "__main__":
    main()
