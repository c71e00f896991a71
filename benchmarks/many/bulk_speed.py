"""cast-segment --json against cast-bulk, on this machine's processes and on Ray: pace, processor time, memory.

    python benchmarks/many/bulk_speed.py FOLDER [FOLDER ...] --count 1000 [--ways segment local ray] [--workers 2]

Each way is a fresh process. "steady" leaves out the time to the first image. Memory is the peak of the sum over all
processes of the way, sampled, in its first and in its second half. The data sets of both engines are compared row by
row. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "photos").mkdir()
        for number in range(options.count):
            source = photos[number % len(photos)]
            shutil.copyfile(source, work / "photos" / f"{number:05}{source.suffix}")
        print(
            f"load {os.getloadavg()[0]:.1f}\n"
            "| way | images/s | steady | processor ms an image | MB | first, second half, MiB |"
        )
        print("|---|---|---|---|---|---|")
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
    before, begun, first = used(), time.monotonic(), 0.0
    samples: list[tuple[float, float]] = []
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    pattern = "*.json" if way == "segment" else "part-*.parquet"
    done_at_first = 0
    while process.poll() is None:
        samples.append((time.monotonic(), resident(process.pid)))
        if not first and (found := len(list(out.glob(pattern)) if out.exists() else [])):
            first, done_at_first = time.monotonic(), found * (1 if way == "segment" else 50)
        time.sleep(0.2)
    ended = time.monotonic()
    if process.returncode:
        sys.exit(process.stderr.read().decode() if process.stderr else way)
    processor = used() - before
    middle = (first + ended) / 2
    halves = [
        max((mib for at, mib in samples if (at < middle) == early and at > first), default=0) for early in (True, False)
    ]
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(
        f"| {way} | {options.count / (ended - begun):.1f} | {(options.count - done_at_first) / (ended - first):.1f} "
        f"| {1e3 * processor / options.count:.1f} | {size:.1f} | {halves[0]:.0f}, {halves[1]:.0f} |",
        flush=True,
    )


def used() -> float:
    """Processor seconds of all processes that were started and have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def resident(root: int) -> float:
    """Proportional memory of a process and its descendants, MiB."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total / 1024


if __name__ == "__main__":
    main()
