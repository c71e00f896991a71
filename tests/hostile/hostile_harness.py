"""Try bad inputs at every door and say what went wrong: python tests/hostile/hostile_harness.py [--sample N].

A door is one way into the package; a case is one bad input at one door. Each case runs in a folder of its own that
holds files of the user. It may end in a result or in a refusal: a CastError, or a command that ends with a message. All
else is a fault: another exception, a hang, an input that no result can be made of and that is taken all the same, a
temporary or half-written file, a thread that stays, a file of the user that changed. A journal names the case that
runs, so a crash of the whole process has a name too.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INPUT = "bad"  # how files that a case itself makes begin
HANG_SECONDS = 120.0
THREAD_SECONDS = 20.0


@dataclass(frozen=True)
class Case:
    """One bad input at one door.

    Attributes:
        door: its name.
        kind: of the input.
        act: called in the folder of the case; what it returns counts for nothing.
        refused: no result can be made of this input.
        writes: names of files that a refusal may leave, such as a log.
    """

    door: str
    kind: str
    act: Callable[[], object]
    refused: bool = False
    writes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.door}: {self.kind}"


@dataclass
class Report:
    """What came of all cases."""

    taken: int = 0
    refusals: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return self.taken + self.refusals + len(self.faults)


class Refused(Exception):
    """A command ended with a message."""


class Hang(BaseException):
    """A case took too long."""


@contextmanager
def limited(seconds: float) -> Any:
    """Raise Hang in the block after so many seconds."""

    def stop(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with a digest of what it holds; links and pipes by their kind."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif not path.is_dir():
            found[name] = "special"
    return found


def attempt(case: Case, folder: Path) -> tuple[bool, str]:
    """Run a case in `folder`: whether it was taken, and the fault, "" where there is none."""
    from cast_sdk.errors import CastError

    before, threads = contents(folder), set(threading.enumerate())
    there = Path.cwd()
    os.chdir(folder)
    taken, fault = False, ""
    try:
        with limited(HANG_SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.act()
        taken = True
    except (CastError, Refused) as error:
        if not str(error).strip():
            fault = "an empty message"
    except Hang:
        fault = f"no end within {HANG_SECONDS:g} s"
    except BaseException:
        fault = traceback.format_exc(limit=-4)
    finally:
        os.chdir(there)
    if taken and case.refused:
        fault = "taken, although no result can be made of it"
    return taken, fault or _left(case, before, contents(folder), taken) or _threads(threads)


def _left(case: Case, before: dict[str, str], after: dict[str, str], taken: bool) -> str:
    changed = [name for name, digest in before.items() if after.get(name) != digest and name not in case.writes]
    if changed:
        return f"changed files of the user: {', '.join(changed)}"
    new = [name for name in after if name not in before and name not in case.writes and not name.startswith(INPUT)]
    temporary = [name for name in new if ".tmp" in name or Path(name).name.startswith(".")]
    if temporary or (new and not taken):
        return f"left files: {', '.join(temporary or new)}"
    return ""


def _outside(root: Path, folder: Path) -> str:
    above = [path.name for parent in (root, *folder.parents[:2]) for path in parent.iterdir() if path.is_file()]
    return f"left files outside of its folder: {', '.join(above)}" if above else ""


def _threads(before: set[threading.Thread]) -> str:
    deadline = time.monotonic() + THREAD_SECONDS
    while True:
        left = [thread.name for thread in threading.enumerate() if thread not in before]
        if not left:
            return ""
        gc.collect()
        if time.monotonic() > deadline:
            return f"threads stay: {', '.join(left)}"
        time.sleep(0.02)


def run(cases: Iterable[Case], prepare: Callable[[Path], None], journal: Path | None = None) -> Report:
    """All cases one after the other, each in a new folder that `prepare` fills."""
    report = Report()
    for case in cases:
        if journal is not None:
            journal.write_text(case.name, errors="backslashreplace")
        root = Path(tempfile.mkdtemp(prefix="hostile-"))
        folder = root.joinpath(*"abc")  # so deep that `../../..` is still the case's own
        try:
            folder.mkdir(parents=True)
            prepare(folder)
            taken, fault = attempt(case, folder)
            fault = fault or _outside(root, folder)
        finally:
            shutil.rmtree(root, ignore_errors=True)
        if fault:
            report.faults.append(case.name)
            text = f"FAULT {case.name}\n{fault.strip()}".replace("\n", "\n    ")
            print(text.encode(errors="backslashreplace").decode(), file=sys.stderr, flush=True)
        elif taken:
            report.taken += 1
        else:
            report.refusals += 1
    if journal is not None:
        journal.write_text("")
    return report


def sample(cases: list[Case], count: int, seed: int) -> list[Case]:
    """So many of the cases: of every door at least one, the others drawn by the seed; in their order."""
    rng = random.Random(seed)
    order = rng.sample(range(len(cases)), len(cases))
    first = {cases[index].door: index for index in reversed(order)}
    chosen = set(first.values())
    for index in order:
        if len(chosen) >= count:
            break
        chosen.add(index)
    return [cases[index] for index in sorted(chosen)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, default=0, help="so many cases, some of every door; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--journal", type=Path, help="file that names the case that runs")
    given = parser.parse_args()
    import hostile_doors

    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        doors = hostile_doors.Doors(Path(folder))
        cases = [case for case in doors.cases() if given.only in case.name]
        chosen = sample(cases, given.sample, given.seed) if given.sample else cases
        report = run(chosen, doors.prepare, given.journal)
        after = doors.still_right()
    counts = {"cases": len(cases), "tried": report.tried, "taken": report.taken, "refused": report.refusals}
    print(json.dumps({**counts, "faults": len(report.faults), "right afterwards": after}))
    sys.exit(bool(report.faults) or not after)


if __name__ == "__main__":
    from hostile_harness import main as started  # the doors know these classes by the module's own name

    started()
