"""Everything about engines that needs a GPU, in one run: agreement, CUDA graphs, memory, and a latency table.

    python benchmarks/gpu_check.py                                          # cast_tiny and CAST-S, fp32 and fp16
    python benchmarks/gpu_check.py --ckpt cast_s.pth --frames 10000
    python benchmarks/gpu_check.py --models cast_seg_small,segmenter_cast_small --precisions fp32,fp16 --out gpu.md

For each model and precision an engine is built with every TensorRT that is installed and can build for this card. It is
compared with the graph in ONNX Runtime and with the model in torch on the photographs of the package; with and without
a CUDA graph; and it runs many frames while memory is watched. Then everything that can run the model is timed, round by
round in turn, from NumPy arrays to NumPy arrays. `--onnx FILE` adds a graph that is already there, such as an INT8 one.

Prints Markdown with the card's name and all versions; exit code 1 when a check fails. What cannot run here is listed
with its reason.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cast_sdk import bundled
from cast_sdk.errors import CastError
from cast_sdk.export.engines.tensorrt import build_engine
from cast_sdk.export.verification.engine_parity import compare
from cast_sdk.export.verification.photos import Inputs, read_inputs
from cast_sdk.runtime.backends.base import Backend
from cast_sdk.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cast_sdk.runtime.backends.tensorrt import TensorRTBackend
from cast_sdk.runtime.engine.api import FLAVORS, installed_flavors, load_tensorrt
from cast_sdk.runtime.engine.onnx_metadata import read_description

GROWTH_MB = 16.0  # of GPU and of process memory over all frames; an allocation per frame would be gigabytes
Arrays = dict[str, np.ndarray]


@dataclass
class Findings:
    """Rows of the report and what failed or could not run."""

    checks: list[str] = field(default_factory=list)
    latencies: list[tuple[str, str, list[float]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def check(self, what: str, passed: bool, value: str) -> None:
        self.checks.append(f"| {what} | {value} | {'ok' if passed else 'FAILED'} |")
        if not passed:
            self.failures.append(f"{what}: {value}")
        print(f"{'ok' if passed else 'FAILED':>7}  {what}: {value}", file=sys.stderr)

    def attempt(self, what: str, work: Callable[[], Any]) -> Any:
        """The result of `work`, or None with the reason noted."""
        try:
            return work()
        except (CastError, RuntimeError, ImportError) as error:
            self.left_out.append(f"{what}: {' '.join(str(error).split())}")
            print(f"   left out  {self.left_out[-1]}", file=sys.stderr)
            return None


class CompiledTorch:
    """The eager torch backend with its model compiled by torch.compile."""

    def __init__(self, eager: Any) -> None:
        import torch

        self.eager, self.info, self.device = eager, eager.info, eager.device
        self.compiled = torch.compile(eager._model)

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> Arrays:
        plain, self.eager._model = self.eager._model, self.compiled
        try:
            return self.eager.run(image, superpixels)
        finally:
            self.eager._model = plain


def frames(inputs: Inputs, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless batches of the prepared images."""
    number = 0
    while True:
        rows = np.arange(number, number + batch) % len(inputs)
        yield inputs.image[rows], inputs.superpixels[rows]
        number += batch


def agreement(
    found: Findings, what: str, precision: str, first: Any, second: Any, inputs: Inputs, batch: int, bars: bool = True
) -> None:
    """`second` against `first` on every image; without `bars` the numbers are only reported."""
    given = frames(inputs, batch)
    runs = [(first.run(*each), second.run(*each), each[1]) for each, _ in zip(given, range(len(inputs)), strict=False)]
    names = [name for name in runs[0][1] if name in runs[0][0]]
    checks = compare(precision, [({n: a[n] for n in names}, b, superpixels) for a, b, superpixels in runs])
    values = {(check.name, check.measure): check.value for check in checks}
    errors = ", ".join(f"{name} {value:.1e}" for (name, measure), value in values.items() if measure == "error")
    labels = ", ".join(
        f"{name} {value:.2%} ({values[name, 'matched']:.2%})"
        for (name, measure), value in values.items()
        if measure == "superpixels"
    )
    short = [str(check) for check in checks if not check.passed]
    text = "; ".join([f"errors {errors}", f"equal labels (matched) {labels}", *(short if bars else [])])
    found.check(what, not (bars and short), text)


def graph_against_plain(found: Findings, name: str, engine: Path, precision: str, inputs: Inputs) -> None:
    """A CUDA graph changes nothing but the time."""
    plain = TensorRTBackend(engine, cuda_graph=False, allow_host_code=True)
    graph = TensorRTBackend(engine, allow_host_code=True)
    found.check(f"{name}: CUDA graph captured", graph.uses_graph, "yes" if graph.uses_graph else "no")
    agreement(found, f"{name}: graph against plain", precision, plain, graph, inputs, plain.info.batch or 1)
    for backend in (plain, graph):
        backend.close()


def memory_over_frames(found: Findings, name: str, engine: Path, inputs: Inputs, count: int) -> None:
    """No memory is gained while frames are run."""
    backend = TensorRTBackend(engine, allow_host_code=True)
    given = frames(inputs, backend.info.batch or 1)
    for _ in range(min(100, count)):
        backend.run(*next(given))
    free, peak = backend._cuda.memory()[0], _peak_mb()
    for _ in range(count):
        backend.run(*next(given))
    gained, process = (free - backend._cuda.memory()[0]) / 1e6, _peak_mb() - peak
    passed = gained <= GROWTH_MB and process <= GROWTH_MB
    found.check(f"{name}: memory over {count} frames", passed, f"GPU {gained:+.1f} MB, process {process:+.1f} MB")
    backend.close()


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024.0 if sys.platform == "linux" else 1e6)


def latency(found: Findings, model: str, runners: dict[str, Any], inputs: Inputs, rounds: int) -> None:
    """All runners in turn, one run each a round, NumPy to NumPy."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    given = frames(inputs, 1)
    for number in range(rounds + 10):
        each = next(given)
        for name, runner in runners.items():
            start = perf_counter()
            runner.run(*each)
            if number >= 10:
                times[name].append((perf_counter() - start) * 1e3)
    found.latencies += [(model, name, values) for name, values in times.items()]


def examine(
    found: Findings,
    name: str,
    onnx: Path,
    folder: Path,
    inputs_of: Callable[[Any, Any], Inputs],
    torch_backend: Backend | None,
    *,
    device: str,
    count: int,
) -> dict[str, Any]:
    """Every check of one graph; returns what can be timed, by name."""
    spec, info = read_description(onnx)
    inputs = inputs_of(spec, info)
    reference = OnnxRuntimeBackend(onnx, device="cpu", threads=2)
    runners: dict[str, Any] = {}
    for flavor in FLAVORS:
        label = f"{name} {info.precision} {flavor}"
        if flavor not in installed_flavors():
            found.left_out.append(f"{label}: the package is not installed")
            continue
        engine = folder / f"{onnx.stem}-{flavor}.engine"
        record = found.attempt(label, partial(build_engine, onnx, engine, flavor=flavor, verify=False))
        if record is None:
            continue
        backend = found.attempt(label, partial(TensorRTBackend, engine))
        if backend is None:
            continue
        batch = info.batch or 1
        agreement(found, f"{label}: against ONNX Runtime", info.precision, reference, backend, inputs, batch)
        if torch_backend is not None:
            # What a reduced precision costs is judged at export, with trained weights (docs/export.md).
            exact, against = info.precision == "fp32", f"{label}: against float32 torch"
            agreement(found, against, info.precision, torch_backend, backend, inputs, batch, bars=exact)
        graph_against_plain(found, label, engine, info.precision, inputs)
        memory_over_frames(found, label, engine, inputs, count)
        runners[f"{load_tensorrt(flavor).name} {info.precision}"] = backend
        plain = TensorRTBackend(engine, cuda_graph=False)
        runners[f"{load_tensorrt(flavor).name} {info.precision}, no CUDA graph"] = plain
    if device == "cuda":
        label = f"ONNX Runtime CUDA {info.precision}"
        session = found.attempt(f"{name}: {label}", partial(OnnxRuntimeBackend, onnx, device="cuda"))
        if session is not None:
            runners[label] = session
    return runners


def report(found: Findings, card: str) -> str:
    """The findings as Markdown."""
    lines = [f"## {card}", "", "| check | found | |", "|---|---|---|", *found.checks]
    lines += ["", "| model | run by | median ms | least ms | frames/s |", "|---|---|---|---|---|"]
    for model, name, values in found.latencies:
        middle = statistics.median(values)
        lines.append(f"| {model} | {name} | {middle:.3f} | {min(values):.3f} | {1e3 / middle:.0f} |")
    if found.left_out:
        lines += ["", "Not run:", "", *(f"- {reason}" for reason in found.left_out)]
    return "\n".join(lines) + "\n"


def describe_machine() -> str:
    """Card, driver and versions. Raises MissingDependencyError without a GPU."""
    import torch

    from cast_sdk.runtime.engine.cuda import open_cuda

    cuda = open_cuda()
    driver, runtime = cuda.versions()
    packages = ", ".join(load_tensorrt(flavor).name for flavor in installed_flavors()) or "no TensorRT"
    return (
        f"{cuda.gpu().name} ({cuda.gpu().target}), CUDA driver {driver // 1000}.{driver % 1000 // 10}, "
        f"runtime {runtime // 1000}.{runtime % 1000 // 10}, {packages}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )


def run(arguments: argparse.Namespace, device: str = "cuda") -> Findings:
    """All that was asked for."""
    import torch

    from cast_sdk import create_model, export_onnx, load_model
    from cast_sdk.models import save_native
    from cast_sdk.runtime.backends.torch import TorchBackend

    found = Findings()
    photos = [Path(path) for path in arguments.images] or bundled.photos()

    def inputs_of(spec: Any, info: Any) -> Inputs:
        return read_inputs(spec, (info.height, info.width), photos, skip_unreadable=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = {Path(arguments.ckpt).stem: load_model(arguments.ckpt)} if arguments.ckpt else {}
        for name in () if arguments.ckpt else filter(None, arguments.models.split(",")):
            torch.manual_seed(0)
            models[name] = create_model(name).eval()
        for name, model in models.items():
            if arguments.ckpt:
                checkpoint = Path(arguments.ckpt)
            else:
                checkpoint = folder / f"{name}.safetensors"
                save_native(model, checkpoint)
            eager = TorchBackend(checkpoint, device=device)
            runners: dict[str, Any] = {"torch eager": eager}
            compiled = found.attempt(f"{name}: torch.compile", partial(CompiledTorch, eager))
            for precision in arguments.precisions.split(","):
                onnx = folder / f"{name}-{precision}.onnx"
                export_onnx(model, onnx, precision=precision, verify=False)
                runners |= examine(found, name, onnx, folder, inputs_of, eager, device=device, count=arguments.frames)
            inputs = inputs_of(eager.spec, eager.info)
            if compiled is not None and found.attempt(
                f"{name}: torch.compile", partial(compiled.run, inputs.image[:1], inputs.superpixels[:1])
            ):
                runners["torch.compile"] = compiled
            latency(found, name, runners, inputs, arguments.rounds)
        for path in map(Path, arguments.onnx):
            runners = examine(found, path.stem, path, folder, inputs_of, None, device=device, count=arguments.frames)
            latency(found, path.stem, runners, inputs_of(*read_description(path)), arguments.rounds)
    return found


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="cast_tiny,cast_small", help="registered models, with random weights")
    parser.add_argument("--ckpt", help="a checkpoint instead of them")
    parser.add_argument("--onnx", action="append", default=[], metavar="FILE", help="also this graph (repeatable)")
    parser.add_argument("--precisions", default="fp32,fp16")
    parser.add_argument("--images", nargs="*", default=[], help="images to compare on (default: the package's)")
    parser.add_argument("--frames", type=int, default=10_000, help="frames of the memory check")
    parser.add_argument("--rounds", type=int, default=200, help="rounds of the latency table")
    parser.add_argument("--out", type=Path, help="write the report there too")
    return parser.parse_args(words)


def main() -> None:
    arguments = parse()
    try:
        card = describe_machine()
        found = run(arguments)
    except CastError as error:
        sys.exit(f"error: {error}")
    text = report(found, card)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)
    if found.failures:
        sys.exit(f"{len(found.failures)} checks failed: " + "; ".join(found.failures))


if __name__ == "__main__":
    main()
