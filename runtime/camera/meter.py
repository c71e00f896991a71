"""Frame rate and stage times of a running camera, for people."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation

_SPAN = 2.0  # seconds that rate and means look back
_SHORTEST = 0.2  # seconds from which a rate means something
_DARK = 10.0  # mean brightness, of 255, below which a frame is called dark
STAGES = ("read", "preprocess", "superpixels", "model", "postprocess", "latency")


class Meter:
    """Rate, mean stage times and drops over the last two seconds. Thread-safe."""

    def __init__(self) -> None:
        self.frames = self.dropped = 0
        self.dark = False
        self.started = time.monotonic()
        self._first: float | None = None  # when the first result came
        self._recent: deque[tuple[float, dict[str, float]]] = deque()
        self._lock = threading.Lock()

    def add(self, result: Segmentation) -> None:
        now = time.monotonic()
        with self._lock:
            self.frames += 1
            self._first = now if self._first is None else self._first
            self.dropped = result.dropped
            if result.frame is not None:
                self.dark = bool(result.frame[::16, ::16].mean() < _DARK)
            self._recent.append((now, result.timing))
            self._forget(now)

    def rate(self) -> float:
        """Frames per second; 0 in the first moments, and when none came for a while."""
        now = time.monotonic()
        with self._lock:
            self._forget(now)
            if self._first is None or not self._recent:
                return 0.0
            # Results of files come in bursts: count them over the time that passed, not from one to another.
            span = min(_SPAN, now - self._first)
            counted = sum(1 for when, _ in self._recent if when > max(self._first, now - _SPAN))
            return round(counted / span, 2) if span >= _SHORTEST else 0.0

    def timing(self) -> dict[str, float]:
        """Mean milliseconds per stage."""
        with self._lock:
            rows = [row for _, row in self._recent]
        return {
            stage: round(sum(row[stage] for row in rows) / len(rows), 2)
            for stage in STAGES
            if rows and all(stage in row for row in rows)
        }

    def summary(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "fps": self.rate(),
            "frames": self.frames,
            "dropped": self.dropped,
            "dark": self.dark,
            "timing_ms": self.timing(),
            "uptime_s": round(time.monotonic() - self.started, 1),
        }

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] > _SPAN:
            self._recent.popleft()
