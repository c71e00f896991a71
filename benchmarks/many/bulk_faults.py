"""Kill cast-bulk at random moments, again and again, and compare what it makes in the end with an undisturbed data set.

    python benchmarks/many/bulk_faults.py FOLDER --victim worker|driver|ray [--kills 10] [--seed 0]

`worker`: a process of the local engine, while it works; `driver`: the command itself, which is then started again;
`ray`: one of Ray's workers. Ends with code 1 where the parts differ in a single byte. Linux only (/proc).
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--victim", choices=("worker", "driver", "ray"), required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part-rows", type=int, default=20)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    command = [str(Path(sys.executable).parent / "cast-bulk"), options.folder, "--part-rows", str(options.part_rows)]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        begun = time.monotonic()
        subprocess.run([*command, "--out", str(work / "whole"), "--quiet"], check=True)
        seconds = time.monotonic() - begun
        command += ["--out", str(work / "out"), "--quiet"] + (["--engine", "ray"] if options.victim == "ray" else [])
        kills = starts = 0
        while True:
            process, starts = subprocess.Popen(command), starts + 1
            while process.poll() is None:
                wait = rng.uniform(0.02, 1.2 * seconds / options.kills)
                deadline = time.monotonic() + wait
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.01)
                if process.poll() is not None or kills >= options.kills:
                    continue
                kills += kill(process.pid, options.victim, rng)
            if process.returncode == 0:
                break
            if options.victim != "driver":
                sys.exit(f"the command ended with {process.returncode}")
        equal = parts(work / "out") == parts(work / "whole")
        print(f"{options.victim}: {kills} killed, {starts} starts, {len(parts(work / 'out'))} parts, equal: {equal}")
        sys.exit(not equal or not kills)


def kill(root: int, victim: str, rng: random.Random) -> int:
    """Kill one process; 0 where there is none to kill."""
    if victim == "driver":
        os.kill(root, signal.SIGKILL)
        return 1
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        mine = parent == root and "spawn_main" in words
        if entry.name.isdecimal() and (mine if victim == "worker" else words.startswith("ray::Worker")):
            found.append(int(entry.name))
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
