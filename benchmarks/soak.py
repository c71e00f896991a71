"""An hour's worth of camera: 30,000 frames, two web viewers that come and go; memory, threads, descriptors, latency.

    python benchmarks/soak.py [MODEL.onnx] [--frames 30000] [--rate 100] [--track]

Prints one line per sample and, at the end, a table in Markdown. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import cast_sdk
from cast_sdk.runtime.camera.server import WebView


def resident() -> float:
    """Resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def row(samples: Sequence[tuple[int, float, int, int, list[float]]], name: str) -> str:
    latencies = np.concatenate([np.asarray(s[4]) for s in samples])
    p50, p90, p99 = np.percentile(latencies, (50, 90, 99))
    memory = statistics.median(s[1] for s in samples)
    threads, files = (sorted({s[i] for s in samples}) for i in (2, 3))
    return (
        f"| {name} | {memory:.1f} | {threads[0]} to {threads[-1]} | {files[0]} to {files[-1]} "
        f"| {p50:.1f} | {p90:.1f} | {p99:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--threads", type=int, help="of the network")
    parser.add_argument("--frames", type=int, default=30000)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--size", type=int, nargs=2, default=(160, 120), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--track", action="store_true", help="follow segments; also says how many ids there were")
    options = parser.parse_args()
    rt = cast_sdk.Runtime(options.model, threads=options.threads)
    view = WebView(rt, port=0, title="soak")
    url = f"ws://127.0.0.1:{view.port}/api/stream"
    clients = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("web_clients.py")), url, "--count", "2"],
        stderr=subprocess.DEVNULL,
    )
    width, height = options.size
    source = f"test://?width={width}&height={height}&rate={options.rate:g}"
    samples: list[tuple[int, float, int, int, list[float]]] = []
    latencies: list[float] = []
    step = max(1, options.frames // 60)
    started = time.monotonic()
    done = dropped = 0
    highest = -1
    with rt.stream(source, track=options.track) as stream:
        for result in stream:
            view.show(result)
            if options.track:
                ids = [result.tracks(level) for level in range(len(rt.spec.clusters) + 1)]
                assert all(level.dtype == np.int64 for level in ids)
                highest = max(highest, *(int(level.max()) for level in ids))
            latencies.append(result.timing["latency"])
            done, dropped = done + 1, result.dropped
            if done % step == 0:
                samples.append((done, resident(), threading.active_count(), descriptors(), latencies))
                p50, p99 = np.percentile(latencies, (50, 99))
                print(
                    f"{done:6} frames  {done / (time.monotonic() - started):6.1f} fps  {samples[-1][1]:7.1f} MiB  "
                    f"{samples[-1][2]} threads  {samples[-1][3]} descriptors  {len(view.hub.viewers)} viewers  "
                    f"latency {p50:.1f} / {p99:.1f} ms",
                    flush=True,
                )
                latencies = []
            if done == options.frames:
                break
    alive = clients.poll() is None
    clients.terminate()
    clients.wait()
    view.close()
    third = len(samples) // 3
    first, last = samples[third // 3 : third], samples[-third:]
    growth = statistics.median(s[1] for s in last) / statistics.median(s[1] for s in first) - 1
    print(f"\n{rt!r}, {source}\n{done} frames in {time.monotonic() - started:.0f} s, {dropped} dropped")
    print("\n| | memory, MiB | threads | descriptors | latency p50, ms | p90 | p99 |\n|---|---|---|---|---|---|---|")
    print(row(first, "first third, warm"))
    print(row(last, "last third"))
    if options.track:
        print(f"\n{highest + 1} track ids, all int64; {result.scene + 1} scenes")
    print(f"\nmemory {growth:+.1%} from the first third to the last; viewers came and went to the end: {alive}")


if __name__ == "__main__":
    main()
