"""Time models on real frames: load, first frame, stages, single and streaming use; two of them interleaved."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.runtime.backends.opening import BACKENDS
from cast_sdk.runtime.runtime import Runtime
from cast_sdk.system.processor import processor_name

STAGES = ("preprocess", "superpixels", "model", "postprocess", "total")

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Candidate:
    """What is timed: a model file, and how it is run. None: the bundled model; backend "auto": by the suffix."""

    model: str | None
    backend: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> Candidate:
        """From `FILE[@BACKEND[:PRECISION]]`, such as `cast_s.onnx@openvino:bf16`.

        Raises:
            InputError: for a precision of a backend that has no such choice.
        """
        if text is None:
            return cls(None)
        model, _, tail = text.rpartition("@")
        backend, _, precision = tail.partition(":")
        if not model or backend not in BACKENDS:
            return cls(text)
        if precision and backend not in ("openvino", "torch"):
            raise InputError(
                f"{text} names a precision, and {backend} cannot choose one when it loads: openvino and torch can.",
                remedy="export a file of that precision and name it",
            )
        return cls(model, backend, {"precision": precision} if precision else {})

    @property
    def label(self) -> str:
        name = Path(self.model).name if self.model else "bundled model"
        extra = f" ({self.options['precision']})" if self.options else ""
        return name if self.backend == "auto" else f"{name} on {self.backend}{extra}"


@dataclass
class Report:
    """Milliseconds of one candidate. `samples[stage]` holds one number per frame."""

    label: str
    runtime: str
    load_ms: float
    first_ms: float
    samples: dict[str, list[float]]
    stream_fps: list[float]

    @property
    def single_fps(self) -> float:
        """Frames per second of calling `segment` in a loop, from the median frame."""
        return 1e3 / float(np.median(self.samples["total"]))

    def to_dict(self) -> dict[str, Any]:
        stages = {stage: _statistics(values) for stage, values in self.samples.items()}
        return {
            "label": self.label,
            "runtime": self.runtime,
            "load_ms": round(self.load_ms, 2),
            "first_frame_ms": round(self.first_ms, 2),
            "stages_ms": stages,
            "single_fps": round(self.single_fps, 2),
            "stream_fps": round(float(np.median(self.stream_fps)), 2) if self.stream_fps else None,
        }


def measure(
    candidates: Sequence[Candidate],
    frames: Sequence[Frame],
    *,
    count: int = 100,
    warmup: int = 5,
    streams: int = 3,
    progress: Callable[[], None] = lambda: None,
    **options: Any,
) -> list[Report]:
    """Time candidates in this process, frame by frame in turn, so that a busy moment hits all of them.

    Args:
        candidates: one or more.
        frames: uint8 BGR frames, used round and round.
        count: timed frames per candidate.
        warmup: frames before that, not counted.
        streams: passes of `count` frames through `Runtime.stream`, again in turn; 0: none.
        progress: called after each frame and pass.
        options: passed to every Runtime (device, fit, grouping, threads, spinning).

    Raises:
        CastError: whatever loading and running a candidate raises.
    """
    runtimes: list[Runtime] = []
    reports: list[Report] = []
    try:
        for candidate in candidates:
            start = perf_counter()
            runtime = Runtime(candidate.model, backend=candidate.backend, **{**options, **candidate.options})
            loaded = perf_counter()
            runtime.segment(frames[0])
            first = perf_counter()
            samples: dict[str, list[float]] = {stage: [] for stage in STAGES}
            runtimes.append(runtime)
            reports.append(
                Report(candidate.label, repr(runtime), (loaded - start) * 1e3, (first - loaded) * 1e3, samples, [])
            )
        for index in range(-warmup, count):
            for runtime, report in zip(runtimes, reports, strict=True):
                timing = runtime.segment(frames[index % len(frames)]).timing
                if index >= 0:
                    for stage in STAGES:
                        report.samples[stage].append(timing[stage])
                progress()
        for _ in range(streams):
            for runtime, report in zip(runtimes, reports, strict=True):
                source = (frames[index % len(frames)] for index in range(count))
                start = perf_counter()
                done = sum(1 for _ in runtime.stream(source, latest=False))
                report.stream_fps.append(done / (perf_counter() - start))
                progress()
    finally:
        for runtime in runtimes:
            runtime.close()
    return reports


def ratios(first: Report, second: Report) -> dict[str, dict[str, float]]:
    """How many times as fast the second is, by stage: from medians, from minima, and per pair of neighbours."""
    table = {}
    for stage in STAGES:
        a, b = np.array(first.samples[stage]), np.array(second.samples[stage])
        table[stage] = {
            "median": round(float(np.median(a) / np.median(b)), 3),
            "min": round(float(a.min() / b.min()), 3),
            "pairs": round(float(np.median(a / b)), 3),
        }
    if first.stream_fps and second.stream_fps:
        fast, slow = np.array(second.stream_fps), np.array(first.stream_fps)
        table["stream"] = {
            "median": round(float(np.median(fast) / np.median(slow)), 3),
            "min": round(float(fast.max() / slow.max()), 3),
            "pairs": round(float(np.median(fast / slow)), 3),
        }
    return table


def environment() -> dict[str, Any]:
    """The machine and the versions, for the record."""
    from cast_sdk._version import __version__
    from cast_sdk.runtime.backends.base import default_threads
    from cast_sdk.runtime.commands.installation import installed

    return {
        "cast_sdk": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "default_threads": default_threads(),
        "packages": installed(("numpy", "opencv-python", "onnxruntime", "onnxruntime-gpu", "openvino", "torch")),
    }


def peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far in MB (10^6 bytes); None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024) / 1e6


def scene_frames(width: int, height: int, count: int = 32) -> list[Frame]:
    """Frames of the built-in moving scene: textured like a photograph, the same on every machine."""
    from cast_sdk.runtime.sources.scene import Scene

    scene = Scene(width, height)
    return [scene.draw(index * 3) for index in range(count)]


def _statistics(values: Sequence[float]) -> dict[str, float]:
    array = np.array(values)
    return {
        "median": round(float(np.median(array)), 3),
        "p90": round(float(np.percentile(array, 90)), 3),
        "min": round(float(array.min()), 3),
    }
