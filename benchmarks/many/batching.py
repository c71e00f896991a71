"""Whether photographs that go through the network together cost less than one after another.

    cast-export --ckpt M.pth --batch 0 --out any.onnx && cast-export --ckpt M.pth --out one.onnx
    python benchmarks/many/batching.py FOLDER one.onnx any.onnx [--batches 1 2 4 8] [--threads 2] [--rounds 7]

Milliseconds an image of the network alone, wall and processor time (of the process, so it includes threads that spin),
minimum and median of the rounds; every model and batch in turn in each round, on the same photographs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from pathlib import Path

from cast_sdk.images import images_in
from cast_sdk.runtime import Runtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    count = max(options.batches)
    photos = list(itertools.islice(images_in(options.folder, deep=True), count))
    runs = []
    for model in options.models:
        runtime = Runtime(model, threads=options.threads)
        images = [runtime.add_superpixels(runtime.prepare(photo)) for photo in photos]
        for batch in options.batches:
            if runtime.info.batch in (None, batch):
                runs.append((Path(model).name, runtime, images, batch))
    took: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for round_ in range(options.rounds + 1):
        for name, runtime, images, batch in runs:
            wall, processor = time.perf_counter(), time.process_time()
            for first in range(0, count, batch):
                runtime.infer(images[first : first + batch])
            spent = (1e3 * (time.perf_counter() - wall) / count, 1e3 * (time.process_time() - processor) / count)
            if round_:  # the first one warms up
                took.setdefault((name, batch), []).append(spent)
    print(f"{options.threads} threads, load {os.getloadavg()[0]:.1f}")
    print("| model | batch | wall, minimum | median | processor, minimum | median |\n|---|---|---|---|---|---|")
    for (name, batch), spent in took.items():
        cells = [f"{kind(one):.2f}" for one in zip(*spent, strict=True) for kind in (min, statistics.median)]
        print(f"| {name} | {batch} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
