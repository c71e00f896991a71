"""Programs run one after another in processes of their own, within a time: what `training/bundled.py` does.

A step is what a person would type. What it gave is kept in a record, so that the same call goes on after the last
finished step, and does what an earlier one had no time for. A step that works on the result of others waits for them to
finish, and what it gave ends with theirs.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cast_sdk.system.files import atomic_write, read_json
from cast_sdk.training.engine.runlog import duration

CLOSING_SECONDS = 30.0  # that a program may take to write what it has, when its time is over


@dataclass(frozen=True)
class Step:
    """One program of this package.

    Attributes:
        name: for people, and in the record.
        program: module below `cast_sdk.training`.
        words: its arguments.
        after: names of the steps whose results it works on; it runs once all of them have finished.
        writes: its results, removed before it runs: without a record they are those of a run that was interrupted.
        read: what the record keeps, from what the program printed; None: what it prints goes to the terminal.
        gives: what the record keeps of a program that prints to the terminal; None from it: the program did not finish.
    """

    name: str
    program: str
    words: Sequence[object]
    after: Sequence[str] = ()
    writes: Sequence[Path] = ()
    read: Callable[[str], Mapping[str, Any]] | None = None
    gives: Callable[[], Mapping[str, Any] | None] = dict

    def command(self) -> list[str]:
        return [sys.executable, "-m", f"cast_sdk.training.{self.program}", *map(str, self.words)]


@dataclass
class Chain:
    """The record of a chain of steps and its time.

    Attributes:
        record: JSON file of finished steps.
        end: of the time for all steps, on the clock of `time.monotonic`.
        say: tells people what is done.
        locked: an open file that the programs hold too, so that its lock ends with the last of them.
    """

    record: Path
    end: float
    say: Callable[[str], None]
    locked: IO[Any] | None = None
    finished: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.record.is_file():
            self.finished = dict(read_json(self.record)["steps"])

    def run(self, steps: Sequence[Step]) -> None:
        """Run the steps that have not finished before, in order, or note why not."""
        for step in steps:
            missing = [name for name in step.after if name not in self.finished]
            left = self.end - time.monotonic()
            if missing:
                self._leave_out(step, f"without {missing[0]}")
            elif step.name in self.finished:
                self.say(f"{step.name}: done before")
            elif left <= 0:
                self._leave_out(step, "the time was over")
            else:
                self._forget(followers(step, steps))
                self._run(step, left)

    def _forget(self, steps: Sequence[Step]) -> None:
        """Remove the records and the results of finished steps, before what they were made from changes."""
        known = [step for step in steps if step.name in self.finished]
        for step in known:
            del self.finished[step.name]
        if known:
            self._write()
        for path in (path for step in known for path in step.writes):
            path.unlink(missing_ok=True)

    def _run(self, step: Step, left: float) -> None:
        for path in step.writes:
            path.unlink(missing_ok=True)
        self.say(f"{step.name}: {step.program} {' '.join(map(str, step.words))}")
        begin = time.monotonic()
        code, printed = self._process(step, left)
        seconds = time.monotonic() - begin
        over = f"stopped after {duration(seconds)}, when the time was over" if time.monotonic() > self.end else ""
        if code != 0 and over:
            self._leave_out(step, over)
            return
        if code != 0:
            self.failed[step.name] = f"ended with exit code {code}"
            self.say(f"{step.name}: {self.failed[step.name]}")
            return
        result = step.gives() if step.read is None else step.read(printed)
        if result is None:
            self._leave_out(step, over or "interrupted")
            return
        self.finished[step.name] = {"seconds": round(seconds, 1), "command": [*step.command()[1:]], **result}
        self._write()

    def _write(self) -> None:
        with atomic_write(self.record) as temporary:
            temporary.write_text(json.dumps({"steps": self.finished}, indent=1))

    def _process(self, step: Step, left: float) -> tuple[int, str]:
        """Exit code, and what was printed where that is wanted.

        The program is in a session of its own: what ends this one, or the end of the time, reaches it once, as SIGTERM,
        and it writes what it has.
        """
        with subprocess.Popen(
            step.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if step.read else None,
            text=True,
            start_new_session=True,
            pass_fds=[self.locked.fileno()] if self.locked else (),
        ) as process:
            printed = ""
            try:
                printed, _ = process.communicate(timeout=left)
            except BaseException as error:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    printed, _ = process.communicate(timeout=CLOSING_SECONDS)
                process.kill()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
        return process.returncode, printed or ""

    def _leave_out(self, step: Step, why: str) -> None:
        self.left_out[step.name] = why
        self.say(f"{step.name}: left out, {why}")


def followers(step: Step, steps: Sequence[Step]) -> list[Step]:
    """The steps that come after one of them, also by way of others; `steps` is in the order they run in."""
    names = {step.name}
    found = []
    for other in steps:
        if names.intersection(other.after):
            names.add(other.name)
            found.append(other)
    return found
