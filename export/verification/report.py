"""The table that a verification or a quality report ends in: stored in the artifact, printed by commands."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from cast_sdk.errors import ExportError

# How a measure reads, and whether small values are good.
MEASURES = {
    "error": ("largest error / magnitude", True),
    "images": ("images with equal labels", False),
    "superpixels": ("equal labels", False),
    "top1": ("same class", False),
    "cosine": ("cosine of centred scores", False),
    "matched": ("equal labels, matched", False),
    "iou": ("mean IoU, matched", False),
}


@dataclass(frozen=True)
class Check:
    """One row: `value` against `bar`, over `count` decided items; `ties` near ties are left out."""

    name: str
    measure: str  # a key of MEASURES
    value: float
    bar: float | None  # None: stated, not judged
    count: int
    ties: int = 0

    @property
    def passed(self) -> bool:
        if math.isnan(self.value):
            return False
        if self.bar is None:
            return True
        return self.value <= self.bar if MEASURES[self.measure][1] else self.value >= self.bar

    def __str__(self) -> str:
        return f"{self.name}, {MEASURES[self.measure][0]}: {_number(self.value, self)} (bar {_number(self.bar, self)})"


@dataclass
class Report:
    """All checks of one comparison of `runtime` with `reference`."""

    images: int
    reference: str
    runtime: str
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Something was checked and nothing fell short."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def shortfalls(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        checks = [Check(**check) for check in data["checks"]]
        return cls(data["images"], data["reference"], data["runtime"], checks)

    def table(self) -> str:
        """For people."""
        rows = [("output", "measure", "value", "bar", "over", "near ties", "")]
        for check in self.checks:
            rows.append(
                (
                    check.name,
                    MEASURES[check.measure][0],
                    _number(check.value, check),
                    _number(check.bar, check),
                    str(check.count),
                    str(check.ties or "-"),
                    "" if check.passed else "SHORT",
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        lines = [f"{self.runtime} against {self.reference}, {self.images} images", ""]
        for row in rows:
            cells = [
                cell.ljust(width) if at < 2 else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=False))
            ]
            lines.append("  ".join([*cells, row[6]]).rstrip())
        return "\n".join(lines)


def refuse_shortfall(report: Report, problem: str, remedy: str) -> None:
    """Raises ExportError when a report has a check below its bar, or none at all.

    Args:
        problem: what that means here, as a sentence.
        remedy: what to do about it.
    """
    if not report.passed:
        raise ExportError(problem, found="; ".join(map(str, report.shortfalls)) or "no check ran", remedy=remedy)


def _number(value: float | None, check: Check) -> str:
    if value is None:
        return "-"
    if check.measure == "error":
        return f"{value:.1e}"
    return f"{value:.4f}" if check.measure == "cosine" else f"{value:.2%}"
