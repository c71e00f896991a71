"""What the Runtime names photographs with each fit: `python benchmarks/training/fits.py PHOTOGRAPHS CLASSES [MODEL]`.

PHOTOGRAPHS is a folder of files named `..._WNID.jpg`, CLASSES the classes.txt of the model's data set. Those of classes
that the model does not know are left out. Prints how many of the others have the right class first.
"""

from __future__ import annotations

import argparse
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
    for fit in FITS:
        with cast_sdk.Runtime(chosen.model, fit=fit) as rt:
            right = sum(rt.segment(name).top(1)[0][0] == label for name, label in known)
        print(f"{fit}: {right} of {len(known)}, {100 * right / len(known):.1f} %")


if __name__ == "__main__":
    main()
