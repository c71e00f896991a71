"""cast-segment --json against cast-bulk, on this machine's processes and on Ray: pace, processor time, memory.

    python benchmarks/many/bulk_speed.py FOLDER [FOLDER ...] --count 1000 [--ways segment local ray] [--workers 2]

Each way is a fresh process. "steady" is about the last two thirds of the images, so that nothing of the start is in it.
Processor time and memory are sums over all processes of the way, sampled, also of those that Ray starts; memory is the
peak in the first and in the second half of that. The data sets of both engines are compared row by row. Linux only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import adopt_orphans, descendants, stat

from cast_sdk.images import images_in

WAYS = ("segment", "local", "ray")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model")
    options = parser.parse_args()
    photos = [path for folder in options.folders for path in images_in(folder, deep=True)]
    adopt_orphans()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "photos").mkdir()
        for number in range(options.count):
            source = photos[number % len(photos)]
            shutil.copyfile(source, work / "photos" / f"{number:05}{source.suffix}")
        print(
            f"load {os.getloadavg()[0]:.1f}\n"
            "| way | images/s | steady | processor ms an image | steady | MB | first, second half, MiB |"
        )
        print("|---|---|---|---|---|---|---|")
        for way in options.ways:
            measure(way, work, options)
        if {"local", "ray"} <= set(options.ways):
            import pyarrow.parquet as pq

            equal = pq.read_table(work / "local").equals(pq.read_table(work / "ray"))
            print(f"local and ray equal row by row: {equal}")


def measure(way: str, work: Path, options: argparse.Namespace) -> None:
    here, out = Path(sys.executable).parent, work / way
    words = [str(here / "cast-segment"), str(work / "photos"), "--json", "--out", str(out)]
    if way != "segment":
        words = [str(here / "cast-bulk"), str(work / "photos"), "--out", str(out), "--part-rows", "50"]
        words += ["--engine", way, "--workers", str(options.workers)]
    words += ["--model", options.model] if options.model else []
    begun, first, done_at_first, used_at_first = time.monotonic(), 0.0, 0, 0.0
    samples: list[tuple[float, float]] = []
    processor: dict[int, float] = {}  # seconds by process
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    pattern = "*.json" if way == "segment" else "part-*.parquet"
    while process.poll() is None:
        running = descendants()
        processor |= {pid: seconds for pid, seconds in zip(running, map(used, running), strict=True) if seconds}
        samples.append((time.monotonic(), sum(map(resident, running))))
        found = len(list(out.glob(pattern))) * (1 if way == "segment" else 50)
        if not first and found >= options.count / 3:
            first, done_at_first = time.monotonic(), found
            used_at_first = sum(processor.values())
        time.sleep(0.2)
    ended = time.monotonic()
    if process.returncode:
        sys.exit(process.stderr.read().decode() if process.stderr else way)
    middle, spent = (first + ended) / 2, sum(processor.values())
    halves = [
        max((mib for at, mib in samples if (at < middle) == early and at > first), default=0) for early in (True, False)
    ]
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    later = options.count - done_at_first
    print(
        f"| {way} | {options.count / (ended - begun):.1f} | {later / (ended - first):.1f} "
        f"| {1e3 * spent / options.count:.1f} | {1e3 * (spent - used_at_first) / later:.1f} "
        f"| {size:.1f} | {halves[0]:.0f}, {halves[1]:.0f} |",
        flush=True,
    )


def used(pid: int) -> float:
    """Processor seconds of a process; 0 where it has ended."""
    words = stat(pid)
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK") if words else 0.0


def resident(pid: int) -> float:
    """Proportional memory of a process, MiB; 0 where it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
    except (OSError, StopIteration):
        return 0.0


if __name__ == "__main__":
    main()
