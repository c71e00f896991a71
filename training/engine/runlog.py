"""What a run tells: a progress bar with rates and ETA, TensorBoard scalars and one JSON object a line.

    with RunLog(out, enabled=world.main) as log:
        log.bar("epoch 3", steps); log.advance(done, "loss 2.1"); log.record("validation", step, top1=35.2)

`OUT/log.jsonl` is appended to on resume; each line has `time` and `kind` ("start", "step", "validation", "end").
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from cast_sdk.errors import InputError, RecipeError
from cast_sdk.system.files import kind_at, read_text


class RunLog:
    def __init__(self, out: Path, enabled: bool = True, tensorboard: bool = True) -> None:
        self.enabled = enabled
        self.file: TextIO | None = None
        self.board: Any = None
        self.progress: Any = None
        self.task: Any = None
        if not enabled:
            return
        self.file = (out / "log.jsonl").open("a", buffering=1)
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(out / "tensorboard"))
        if sys.stderr.isatty():
            from rich import progress

            columns = (
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[note]}"),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
            )
            self.progress = progress.Progress(*columns, transient=True)
            self.progress.start()

    def bar(self, description: str, total: int, done: int = 0) -> None:
        """Start the bar of an epoch (or another stretch of work)."""
        if self.progress is None:
            return
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.task = self.progress.add_task(description, total=total, completed=done, note="")

    def advance(self, done: int, note: str = "") -> None:
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=done, note=note)

    def record(self, kind: str, step: int | None = None, **values: Any) -> None:
        """One JSON line, and its numbers as TensorBoard scalars `kind/name` when `step` is given."""
        if self.file is None:
            return
        entry = {"kind": kind, "time": round(time.time(), 1)}
        if step is not None:
            entry["step"] = step
        entry |= {name: _plain(value) for name, value in values.items()}
        self.file.write(json.dumps(entry) + "\n")
        if self.board is not None and step is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(f"{kind}/{name}", value, step)

    def say(self, text: str) -> None:
        """One line for people."""
        if not self.enabled:
            return
        if self.progress is not None:
            self.progress.console.print(text)
        else:
            print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress is not None:
            self.progress.stop()
        if self.board is not None:
            self.board.close()
        if self.file is not None:
            self.file.close()


def read_log(out: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a run's log.jsonl; a torn last line (power loss) is left out."""
    entries = _entries(read_text(out / "log.jsonl"))
    return [entry for entry in entries if kind is None or entry.get("kind") == kind]


def _entries(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry


def saved(out: Path) -> bool:
    """Whether the log of a run tells of a checkpoint: only one that was killed in its first save has none."""
    return any(
        entry.get("kind") == "end"
        or (entry.get("kind") == "start" and entry.get("resumed") is True)
        or _epoch(entry) > (entry.get("kind") == "validation")  # the first validation comes before the first save
        for entry in read_log(out)
    )


def _epoch(entry: dict[str, Any]) -> int:
    """Finished epochs when a line was written."""
    epoch = entry.get("epoch")
    return epoch if isinstance(epoch, int) else 0


def check_ours(path: Path) -> None:
    """Refuse to append to what is no log of a run.

    Raises:
        RecipeError: naming it.
    """
    kind = kind_at(path)
    if kind == "nothing":
        return
    try:
        text = read_text(path) if kind == "file" else "none"
    except InputError:
        text = "none"
    # A killed process may have written a part of the first line, and a power loss may have spoiled it.
    begun = not text or '{"kind":'.startswith(text.splitlines()[0][:8])
    if not begun and not any(entry.get("kind") == "start" for entry in _entries(text)):
        raise RecipeError(f"{path} is no log of a run.", remedy="move it away, or choose another --out")


def duration(seconds: float) -> str:
    """ "1 h 05 min", "4 min 10 s"."""
    if not math.isfinite(seconds):
        return "?"
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value
