"""What following segments costs a frame, and what superpixels that go on save.

    python benchmarks/tracking_speed.py [--photograph FILE] [--frames 300] [--superpixels 196] [--size 224]

Partitions are the worst case: Voronoi cells that move, in random groups that are others in every frame, so that
each level remembers as many tracks as it can. The network is left out. Time of the one thread that works, which other
load on the machine disturbs least, and wall time. With a photograph also SEEDS on a film of it, fresh and continued.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import cv2
import films
import numpy as np

from cast_sdk.hierarchy import Hierarchy
from cast_sdk.runtime.tracking import compiled
from cast_sdk.runtime.tracking.following import Follower
from cast_sdk.superpixels import continue_seeds, seeds

CLUSTERS = (64, 32, 16, 8)
WARM = 20


def random_frames(count: int, size: int, superpixels: int) -> Iterator[Hierarchy]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    points = rng.uniform(0, size, (superpixels, 2)).astype(np.float32)
    cells = ((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).argmin(-1)
    for number in range(count):
        levels, member = [], np.arange(superpixels)
        for clusters in CLUSTERS:
            member = rng.integers(0, clusters, int(member.max()) + 1)[member]
            levels.append(member.astype(np.int32))
        yield Hierarchy.from_labels(np.roll(cells, (number % 9, 2 * (number % 9)), (0, 1)), levels)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of wall time and of this thread."""
    wall, thread = time.perf_counter(), time.thread_time()
    action()
    return (time.perf_counter() - wall) * 1e3, (time.thread_time() - thread) * 1e3


def table(rows: dict[str, list[tuple[float, float]]]) -> None:
    print(f"  {'ms per frame':34} thread: median    min    wall: median    min")
    for name, taken in rows.items():
        wall, thread = zip(*taken, strict=True)
        print(
            f"  {name:34} {statistics.median(thread):14.2f} {min(thread):6.2f} "
            f"{statistics.median(wall):15.2f} {min(wall):6.2f}"
        )


def tracking(frames: list[Hierarchy]) -> None:
    followers = {"compiled": Follower()} if compiled.available() else {}
    compiled.available = lambda: False
    followers["NumPy"] = Follower()
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in followers}
    colours: list[tuple[float, float]] = []
    for number, frame in enumerate(frames):
        for name, follower in followers.items():
            result = SimpleNamespace(hierarchy=frame, scene=0, timing={})
            taken = timed(lambda follower=follower, result=result: follower.follow(result))
            if number >= WARM:
                rows[name].append(taken)
        drawn = timed(lambda result=result: result.tracking.shades())
        if number >= WARM:
            colours.append(drawn)
    table({f"tracking, {name}": taken for name, taken in rows.items()} | {"colours of its tracks": colours})


def superpixels(photograph: np.ndarray, count: int, size: int, number: int) -> None:
    rows: dict[str, list[tuple[float, float]]] = {"fresh": [], "continued": []}
    labels = None
    for shot in films.pan(photograph, count):
        image = cv2.cvtColor(cv2.resize(shot.frame, (size, size), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        rows["fresh"].append(timed(lambda image=image: seeds(image, number, 15, 20)))
        if labels is None:
            labels = seeds(image, number, 15, 20)
            continue
        found: list[np.ndarray] = []
        rows["continued"].append(
            timed(
                lambda image=image, last=labels, found=found: found.append(continue_seeds(image, last, number, 15, 4))
            )
        )
        labels = found[0]
    table({f"superpixels, {name}": taken for name, taken in rows.items()})
    ratio = statistics.median(t for _, t in rows["fresh"]) / statistics.median(t for _, t in rows["continued"])
    print(f"  continued are {ratio:.2f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photograph", help="to pan over, for superpixels")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--superpixels", type=int, default=196)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    tracking(list(random_frames(options.frames, options.size, options.superpixels)))
    if options.photograph:
        photograph = cv2.imread(options.photograph)
        if photograph is None:
            parser.error(f"{options.photograph} is no photograph")
        superpixels(photograph, 60, options.size, options.superpixels)


if __name__ == "__main__":
    main()
