"""What a check of a GPU found: checks, times and what did not run, as Markdown and as plain data."""

from __future__ import annotations

import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cast_sdk.errors import CastError


@dataclass
class Settings:
    """How much is done, and where.

    Attributes:
        device: "cuda", or "cpu" for a dry run.
        model: a registered model, with random weights.
        sizes: changes to it; a dry run makes it small.
        batches, rounds, frames: of the latency table and the memory check.
        precisions: of the torch backend.
        train_batch, train_rounds: of the training steps.
        compiled: also compile with torch.compile.
        seconds: after so many no further part is begun.
    """

    device: str = "cuda"
    model: str = "cast_small"
    sizes: dict[str, Any] = field(default_factory=dict)
    batches: tuple[int, ...] = (1, 8, 64)
    rounds: int = 50
    frames: int = 10_000
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")
    train_batch: int = 128
    train_rounds: int = 10
    compiled: bool = True
    seconds: float = 480.0

    @property
    def dry(self) -> bool:
        return self.device == "cpu"


@dataclass
class Findings:
    """Rows of the report, what failed and what could not run."""

    checks: list[str] = field(default_factory=list)
    latencies: list[tuple[str, str, list[float]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    start: float = field(default_factory=time.monotonic)

    def check(self, what: str, passed: bool, value: str) -> None:
        self.checks.append(f"| {what} | {value} | {'ok' if passed else 'FAILED'} |")
        if not passed:
            self.failures.append(f"{what}: {value}")
        print(f"{'ok' if passed else 'FAILED':>7}  {what}: {value}", file=sys.stderr)

    def leave_out(self, what: str, reason: object) -> None:
        self.left_out.append(f"{what}: {' '.join(str(reason).split())}")
        print(f"   left out  {self.left_out[-1]}", file=sys.stderr)

    def attempt(self, what: str, work: Callable[[], Any]) -> Any:
        """The result of `work`, or None with the reason noted."""
        try:
            return work()
        except (CastError, RuntimeError, ImportError) as error:
            self.leave_out(what, error)
            return None

    def part(self, what: str, work: Callable[[], None], seconds: float = float("inf")) -> None:
        """Run one part; one that stops with an error is a failure, and the others go on."""
        if time.monotonic() - self.start > seconds:
            self.leave_out(what, f"{seconds:.0f} seconds were over")
            return
        begin = time.monotonic()
        try:
            work()
        except Exception as error:  # whatever it is, the other parts are to be seen
            traceback.print_exc()
            self.check(what, False, f"stopped by {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        self.notes.append(f"{what}: {time.monotonic() - begin:.1f} s")

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in self.checks]
        return {
            "checks": [{"what": row[0], "found": " | ".join(row[1:-1]), "passed": row[-1] == "ok"} for row in cells],
            "latencies": [{"model": model, "run_by": name, **times(values)} for model, name, values in self.latencies],
            "failures": self.failures,
            "left_out": self.left_out,
            "parts": self.notes,
        }


def times(values: list[float]) -> dict[str, float]:
    """Milliseconds of one row."""
    return {
        "median_ms": round(statistics.median(values), 3),
        "p90_ms": round(float(np.percentile(values, 90)), 3),
        "least_ms": round(min(values), 3),
    }


def report(found: Findings, card: str) -> str:
    """The findings as Markdown."""
    lines = [f"## {card}", "", "| check | found | |", "|---|---|---|", *found.checks]
    lines += ["", "| model | run by | median ms | p90 ms | least ms | runs/s |", "|---|---|---|---|---|---|"]
    for model, name, values in found.latencies:
        row = times(values)
        numbers = f"{row['median_ms']:.3f} | {row['p90_ms']:.3f} | {row['least_ms']:.3f}"
        lines.append(f"| {model} | {name} | {numbers} | {1e3 / max(row['median_ms'], 1e-6):.0f} |")
    for title, entries in (("Not run:", found.left_out), ("Time of the parts:", found.notes)):
        if entries:
            lines += ["", title, "", *(f"- {entry}" for entry in entries)]
    return "\n".join(lines) + "\n"
