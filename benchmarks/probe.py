"""How good a model's embeddings are for other classes: a linear probe of the frozen model on class folders.

    python benchmarks/probe.py FOLDER [--model cast_s.onnx] [--classes 10] [--train 30] [--judge 30]

Takes the first classes that have enough images, learns from some and judges others, drawn by a fixed seed. Prints the
share that is right at the best of three strengths of the probe, chosen by the judging images: more than it could know.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

import cast_sdk
from cast_sdk.images import images_in

STRENGTHS = (1e-3, 1e-2, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="with class folders, at any depth")
    parser.add_argument("--model", action="append", help="repeatable; default: the bundled one")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--train", type=int, default=30, help="images of each class to learn from")
    parser.add_argument("--judge", type=int, default=30, help="images of each class to judge")
    options = parser.parse_args()

    found: dict[str, list[Path]] = defaultdict(list)
    for file in images_in(options.folder, deep=True):
        found[file.parent.name].append(file)
    count = options.train + options.judge
    names = [name for name in sorted(found) if len(found[name]) >= count][: options.classes]
    if len(names) < 2:
        raise SystemExit(f"{options.folder} has no two classes of {count} images: fewer with --train and --judge.")
    files = [found[name][at] for name in names for at in np.random.default_rng(0).permutation(len(found[name]))[:count]]
    labels = np.repeat(np.arange(len(names)), count)
    learning = np.tile(np.arange(count) < options.train, len(names))
    for model in options.model or [None]:
        with cast_sdk.Runtime(*([model] if model else [])) as runtime:
            embeddings = np.stack([runtime.segment(file).embedding for file in files])
        scaled = (embeddings - embeddings[learning].mean(0)) / (embeddings[learning].std(0) + 1e-6)
        right = [
            LogisticRegression(C=strength, max_iter=1000)
            .fit(scaled[learning], labels[learning])
            .score(scaled[~learning], labels[~learning])
            for strength in STRENGTHS
        ]
        print(f"{model or 'bundled'}: {100 * max(right):.1f} % of {(~learning).sum()}, {len(names)} classes")


if __name__ == "__main__":
    main()
