"""A training step as torch runs it and as torch.compile does (`train.compile`), on the CPU in one process, in turns.

    python benchmarks/training/compiled_step.py [--model cast_tiny] [--image-size 96] [--batch 16] [--threads 1]

A step is forward, cross entropy, backward and AdamW in float32, on random images with a regular grid as superpixels.
The first compiled step compiles and is reported by itself (torch keeps what it compiled: TORCHINDUCTOR_CACHE_DIR). Wall
and processor time; ratios are of the medians.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cast_sdk.models import create_model
from cast_sdk.superpixels import seeds_count

Times = tuple[float, float]  # wall, processor


def timed(work: Callable[[], object]) -> Times:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def grid(size: int, count: int) -> Tensor:
    """Square superpixels: int32 [size, size], labels below `count`."""
    side = int(count**0.5)
    cell = torch.arange(size) * side // size
    return (side * cell[:, None] + cell[None]).to(torch.int32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cast_tiny")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size, batch = arguments.image_size, arguments.batch
    images, targets = torch.randn(batch, 3, size, size), torch.arange(batch)

    def step_of(compiled: bool) -> Callable[[], None]:
        torch.manual_seed(0)
        model = create_model(arguments.model, image_size=size, num_classes=batch).train()
        count = seeds_count(size, size, model.spec.superpixels.count)
        superpixels = grid(size, count).expand(batch, -1, -1).contiguous()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        if compiled:
            model.compile()

        def step() -> None:
            F.cross_entropy(model(images, superpixels, count).logits, targets).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    steps = {"eager": step_of(False), "compiled": step_of(True)}
    first = {name: timed(step) for name, step in steps.items()}
    times: dict[str, list[Times]] = {name: [] for name in steps}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            times[name].append(timed(step))

    print(
        f"{arguments.model}, {size} px, batch {batch}, float32, {arguments.threads} thread(s), "
        f"{arguments.rounds} rounds, {platform.machine()}, torch {torch.__version__}"
    )
    print("| step | first, s | wall ms: median (min) | processor ms: median (min) | times faster: wall, processor |")
    print("|---|---|---|---|---|")
    medians = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)] for name, rounds in times.items()
    }
    for name, rounds in times.items():
        cells = [
            f"{1e3 * middle:.0f} ({1e3 * min(column):.0f})"
            for middle, column in zip(medians[name], zip(*rounds, strict=True), strict=True)
        ]
        faster = ", ".join(f"{a / b:.2f}" for a, b in zip(medians["eager"], medians[name], strict=True))
        print(f"| {name} | {first[name][0]:.1f} | {' | '.join(cells)} | {faster} |")


if __name__ == "__main__":
    main()
