"""What `spinning=` costs and gains: frames one by one, and a stream, of the same model in turns in one process.

    python benchmarks/waiting_threads.py MODEL.onnx FOLDER_OF_PHOTOGRAPHS [--threads 2] [--busy]

`--busy` runs a program beside it that keeps one core busy. Processor time is that of this process, so it includes
threads that spin. "Times faster" is against `spinning=False`, median of the rounds, in brackets of the least times.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import cv2
import numpy as np

from cast_sdk.export.verification.photos import find_images
from cast_sdk.runtime import Runtime

_PHOTOGRAPHS = 24


class Busy(AbstractContextManager):  # type: ignore[type-arg]
    """A program of another session that takes one core, and has its share of the others' time."""

    def __enter__(self) -> None:
        self._program = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)

    def __exit__(self, *error: object) -> None:
        self._program.kill()
        self._program.wait()


def in_turns(ways: dict[str, Callable[[int], int]], rounds: int, pause: float) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds a frame by the clock and of processor time, after two rounds that are not counted.

    Args:
        ways: what works on one round, whose number it gets, and says how many frames it made.
        rounds: that are counted.
        pause: seconds before each.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(-2, rounds):
        for name, work in ways.items():
            time.sleep(pause)
            wall, processor = time.perf_counter(), time.process_time()
            frames = work(number)
            taken = time.perf_counter() - wall, time.process_time() - processor
            if number >= 0:
                times[name].append((taken[0] / frames * 1e3, taken[1] / frames * 1e3))
    return times


def table(title: str, times: dict[str, list[tuple[float, float]]]) -> None:
    base = [wall for wall, _ in times["spinning=False"]]
    print(f"\n| {title} | ms median | ms min | processor ms median | times faster |\n|---|---|---|---|---|")
    for name, taken in times.items():
        walls, processor = [wall for wall, _ in taken], [used for _, used in taken]
        ratio = statistics.median(one / other for one, other in zip(base, walls, strict=True))
        print(
            f"| {name} | {statistics.median(walls):.1f} | {min(walls):.1f} | {statistics.median(processor):.1f} "
            f"| {ratio:.2f} ({min(base) / min(walls):.2f}) |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40, help="of single frames")
    parser.add_argument("--streams", type=int, default=6, help="rounds of streams")
    parser.add_argument("--frames", type=int, default=60, help="of a stream")
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    read = (cv2.imread(str(path)) for path in find_images(options.folder)[:_PHOTOGRAPHS])
    frames: list[np.ndarray] = [frame for frame in read if frame is not None]
    if not frames:
        parser.error(f"there is no photograph in {options.folder}")
    runtimes = {
        f"spinning={spinning}": Runtime(options.model, threads=options.threads, spinning=spinning)
        for spinning in (False, None, True)
    }
    runtimes["threads=1"] = Runtime(options.model, threads=1)
    film = [frames[index % len(frames)] for index in range(options.frames)]

    def single(runtime: Runtime) -> Callable[[int], int]:
        return lambda number: len([runtime.segment(frames[number % len(frames)])])

    def stream(runtime: Runtime) -> Callable[[int], int]:
        return lambda number: sum(1 for _ in runtime.stream(film))

    print(f"{runtimes['spinning=None']!r}, {options.threads} threads{', one core busy' if options.busy else ''}")
    with Busy() if options.busy else nullcontext():
        one = {name: single(runtime) for name, runtime in runtimes.items()}
        table("one frame at a time", in_turns(one, options.rounds, pause=0.02))
        many = {name: stream(runtime) for name, runtime in runtimes.items()}
        table("a stream", in_turns(many, options.streams, pause=0.0))


if __name__ == "__main__":
    main()
