"""A progress bar over TensorRT's nested build phases."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from cast_sdk.runtime.engine.api import TensorRT

_STEPS = 1000  # resolution of the bar


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Fraction:
    """How far a build is. TensorRT names the steps of a phase when it starts; phases nest, and names may come back.

    A phase fills one step of its parent, so the whole is the sum of the steps done, each weighed by its parents' steps.
    """

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._best = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._phases[name] = _Phase(parent if parent in self._phases else None, max(steps, 1))

    def step(self, name: str, step: int) -> None:
        if phase := self._phases.get(name):
            phase.done = min(max(phase.done, step + 1), phase.steps)

    def finish(self, name: str) -> None:
        phase = self._phases.pop(name, None)
        parent = self._phases.get(phase.parent) if phase and phase.parent else None
        if phase and phase.parent is None:
            self._best = 1.0
        elif parent is not None:
            parent.done = min(parent.done, parent.steps)

    @property
    def value(self) -> float:
        """0..1, never falling."""
        roots = [name for name, phase in self._phases.items() if phase.parent is None]
        self._best = max([self._best, *(self._of(name) for name in roots)])
        return min(self._best, 1.0)

    @property
    def innermost(self) -> str:
        """Name of the phase that started last."""
        return next(reversed(self._phases), "")

    def _of(self, name: str) -> float:
        phase = self._phases[name]
        inner = max((self._of(child) for child, other in self._phases.items() if other.parent == name), default=0.0)
        return min((phase.done + inner) / phase.steps, 1.0)


class BuildProgress:
    """Shows a build on the terminal, and ends it on Ctrl-C. Use it in a `with` block around the build.

    Attributes:
        monitor: the IProgressMonitor for the builder's configuration.
    """

    def __init__(self, trt: TensorRT, *, enabled: bool = True) -> None:
        self._fraction = Fraction()
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._bar: Any = None
        self._shown = 0
        self._enabled = enabled
        self._interrupted = False
        self._title = f"Building with {trt.name}"
        self.monitor = self._make_monitor(trt.module.IProgressMonitor)

    def _make_monitor(self, base: Any) -> Any:
        progress = self

        class Monitor(base):
            def __init__(self) -> None:
                base.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
                progress._update("start", phase_name, parent_phase, num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                progress._update("step", phase_name, step)
                return not progress._interrupted

            def phase_finish(self, phase_name: str) -> None:
                progress._update("finish", phase_name)

        return Monitor()

    def _update(self, event: str, *arguments: Any) -> None:
        # Called from TensorRT's threads, through C++: no exception may leave.
        try:
            with self._lock:
                getattr(self._fraction, event)(*arguments)
                if self._bar is not None:
                    now = int(self._fraction.value * _STEPS)
                    self._bar.update(now - self._shown, self._fraction.innermost)
                    self._shown = now
        except KeyboardInterrupt:
            self._interrupted = True

    def _interrupt(self, *_: Any) -> None:
        # Raised here, the exception would land in whatever Python code TensorRT calls, mostly its logger, and be lost.
        self._interrupted = True

    def raise_if_interrupted(self) -> None:
        """Raise the KeyboardInterrupt that came during the build."""
        if self._interrupted:
            raise KeyboardInterrupt

    def __enter__(self) -> BuildProgress:
        if threading.current_thread() is threading.main_thread():
            self._stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, self._interrupt))
        if self._enabled:
            import click

            bar: Any = click.progressbar(
                length=_STEPS,
                label=self._title,
                file=sys.stderr,
                show_eta=False,
                width=24,
                item_show_func=lambda phase: (phase or "")[:36],
            )
            self._bar = self._stack.enter_context(bar)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None and kind is None and not self._interrupted:
            self._bar.update(_STEPS - self._shown)
        self._stack.close()
        self._bar = None
