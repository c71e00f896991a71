"""Kill cast-bulk at random moments, again and again, and compare what it makes in the end with an undisturbed data set.

    python benchmarks/many/bulk_faults.py FOLDER --victim worker|driver|ray [--engine local|ray] [--kills 10] [--seed 0]

`worker`: a process that reads images; `driver`: the command itself, which is then started again; `ray`: one of Ray's
workers (with --engine ray). Ends with code 1 where the parts differ in a single byte from those that the local engine
made, or where fewer were killed. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import adopt_orphans, descendants, words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--victim", choices=("worker", "driver", "ray"), required=True)
    parser.add_argument("--engine", choices=("local", "ray"))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part-rows", type=int, default=20)
    options = parser.parse_args()
    engine = options.engine or ("ray" if options.victim == "ray" else "local")
    if options.victim == "ray" and engine == "local":
        parser.error("the local engine has none of Ray's workers: give --engine ray")
    rng = random.Random(options.seed)
    adopt_orphans()
    command = [str(Path(sys.executable).parent / "cast-bulk"), options.folder, "--part-rows", str(options.part_rows)]
    command += ["--quiet"]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        subprocess.run([*command, "--out", str(work / "whole")], check=True)
        command += ["--engine", engine]
        begun = time.monotonic()
        subprocess.run([*command, "--out", str(work / "again")], check=True)
        seconds = time.monotonic() - begun
        command += ["--out", str(work / "out")]
        kills = starts = 0
        while True:
            process, starts = subprocess.Popen(command), starts + 1
            while process.poll() is None:
                wait = rng.uniform(0.02, 0.8 * seconds / options.kills)
                deadline = time.monotonic() + wait
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.01)
                if process.poll() is not None or kills >= options.kills:
                    continue
                kills += kill(process.pid, options.victim, rng)
            if process.returncode == 0:
                break
            if options.victim != "driver":
                sys.exit(f"after {kills} kills the command ended with {process.returncode}")
        whole, again, out = (parts(work / name) for name in ("whole", "again", "out"))
        equal = whole == again == out
        print(
            f"{engine}, {options.victim}: {kills} killed, {starts} starts, {len(out)} parts, equal: {equal}; "
            f"undisturbed {seconds:.1f} s"
        )
        sys.exit(not equal or kills < options.kills)


def kill(root: int, victim: str, rng: random.Random) -> int:
    """Kill one process; 0 where there is none to kill."""
    begins = {"worker": "spawn_main", "ray": "ray::Worker"}
    found = [root] if victim == "driver" else [pid for pid in descendants() if begins[victim] in words(pid)]
    if not found:
        return 0
    try:
        os.kill(rng.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*.parquet"))}


if __name__ == "__main__":
    main()
