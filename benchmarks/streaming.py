"""Throughput of `Runtime.stream`.

    python benchmarks/streaming.py [MODEL.onnx]

First with a network that only waits, as if it ran on another device: the stream should keep the pace of its slowest
stage alone. Then, where a model is given (or bundled), against calling `segment` in a loop, in turns, and the same with
tracking and superpixels that go on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import cast_sdk
from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ArtifactError
from cast_sdk.runtime.sources.scene import Scene
from cast_sdk.spec import ModelSpec

SIDE, COUNT = 224, 196


class WaitingBackend:
    """A network on another device: `wait` seconds without using the CPU."""

    device = "cuda"  # so that `stream` plans for a network that does not share the CPU
    spec = ModelSpec(
        name="waiting",
        family="cast",
        embed_dim=8,
        depths=(1, 1, 1, 1),
        num_heads=1,
        clusters=(64, 32, 16, 8),
        num_classes=10,
        image_size=SIDE,
        position_grid=28,
    )
    info = ExportInfo("fp32", 1, SIDE, SIDE, COUNT, ("embedding", "logits", "level1", "level2", "level3", "level4"))

    def __init__(self, wait: float) -> None:
        self.wait = wait

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(self.wait)
        labels = np.arange(COUNT, dtype=np.int32)[None]
        levels = {f"level{n}": labels // size for n, size in ((1, 4), (2, 8), (3, 16), (4, 32))}
        return {"embedding": np.zeros((1, 8), np.float32), "logits": np.zeros((1, 10), np.float32), **levels}

    def close(self) -> None:
        """Nothing to free."""


class Times:
    """Milliseconds per frame of one way of working, round by round."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []  # of all threads: other load on the machine hardly changes it

    def take(self, action: Callable[[], object], frames: int) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        action()
        self.wall.append((time.perf_counter() - wall) / frames * 1e3)
        self.processor.append((time.process_time() - processor) / frames * 1e3)


def measure(ways: dict[str, Callable[[], object]], frames: int, rounds: int) -> dict[str, Times]:
    """All ways in turns, round by round, and their table."""
    times = {name: Times() for name in ways}
    for _ in range(rounds):
        for name, action in ways.items():
            times[name].take(action, frames)
    print("  ms per frame      median      min   processor time, median")
    for name, taken in times.items():
        print(
            f"  {name:12} {statistics.median(taken.wall):11.2f} {min(taken.wall):8.2f}"
            f" {statistics.median(taken.processor):12.2f}"
        )
    return times


def waiting(frames: list[np.ndarray], wait: float, rounds: int, workers: int) -> None:
    rt = cast_sdk.Runtime(WaitingBackend(wait))
    prepared = [rt.add_superpixels(rt.prepare(frame)) for frame in frames]
    rows = rt.infer(prepared)
    stages: dict[str, Callable[[], object]] = {
        "superpixels": lambda: [rt.add_superpixels(rt.prepare(frame)) for frame in frames],
        "model": lambda: [rt.infer([item]) for item in prepared],
        "finish": lambda: [rt.finish(item, row) for item, row in zip(prepared, rows, strict=True)],
        "stream": lambda: sum(1 for _ in rt.stream(frames, workers=workers)),
        "loop": lambda: [rt.segment(frame) for frame in frames],
    }
    print(f"\nnetwork that waits {wait * 1e3:g} ms, {workers} superpixel worker(s)")
    times = measure(stages, len(frames), rounds)
    shares = [
        max(times["superpixels"].wall[i] / workers, times["model"].wall[i], times["finish"].wall[i])
        / times["stream"].wall[i]
        for i in range(rounds)
    ]
    print(f"  stream reaches {statistics.median(shares):.1%} of the slowest stage alone (worst {min(shares):.1%})")


def real(
    model: str | None, threads: int | None, spinning: bool | None, frames: list[np.ndarray], rounds: int, workers: int
) -> None:
    try:
        rt = cast_sdk.Runtime(model, threads=threads, spinning=spinning)
    except ArtifactError as error:
        print(f"\nno model: {error}")
        return
    ways: dict[str, Callable[[], object]] = {
        "loop": lambda: [rt.segment(frame) for frame in frames],
        "stream": lambda: sum(1 for _ in rt.stream(frames, workers=workers)),
        "tracked": lambda: sum(1 for _ in rt.stream(frames, workers=workers, track=True)),
    }
    rt.segment(frames[0])
    print(f"\n{rt!r}")
    times = measure(ways, len(frames), rounds)
    ratios = [loop / stream for loop, stream in zip(times["loop"].wall, times["stream"].wall, strict=True)]
    print(f"  stream is {statistics.median(ratios):.2f} times as fast (worst {min(ratios):.2f})")
    for what in ("wall", "processor"):
        plain, tracked = (getattr(times[name], what) for name in ("stream", "tracked"))
        part = [b / a for a, b in zip(plain, tracked, strict=True)]
        print(
            f"  tracked takes {statistics.median(part):.3f} times of the {what} time of the untracked stream, "
            f"by minima {min(tracked) / min(plain):.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--threads", type=int, help="of the network")
    parser.add_argument(
        "--spinning", action=argparse.BooleanOptionalAction, help="ONNX Runtime: let idle threads spin, or never"
    )
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--wait", type=float, default=5.0, help="milliseconds")
    options = parser.parse_args()
    scene = Scene(640, 480)
    frames = [scene.draw(5 * index) for index in range(options.frames)]
    waiting(frames, options.wait / 1e3, options.rounds, options.workers)
    real(options.model, options.threads, options.spinning, frames, options.rounds, options.workers)


if __name__ == "__main__":
    main()
