"""Everything that needs a GPU, in one run: the torch backend, CUDA calls, training steps, and engines.

    python benchmarks/gpu_check.py --out gpu.md --json gpu.json       # all parts, about 8 minutes on one card
    python benchmarks/gpu_check.py --parts golden,latency,memory      # some of them
    python benchmarks/gpu_check.py --parts engines --ckpt cast_s.pth --frames 10000
    python benchmarks/gpu_check.py --dry-run                          # small sizes on the CPU: does the program run?

With torch and Triton alone: golden fixtures through the torch backend; every CUDA call of the engines' execution; the
sampler's kernel against the loops; eager, compiled and static runs, the latter with and without a CUDA graph, at batch
1, 8 and 64 in three precisions against the reference's way of running; memory over many frames; training steps of DeiT
and MoCo, with the loader too; an overflow under AMP. With TensorRT, for each model and precision: an engine with every
TensorRT that is installed and can build for this card, compared with the graph in ONNX Runtime and with the model in
torch, with and without a CUDA graph; it runs many frames while memory is watched. `--onnx FILE` adds a graph that is
there already, such as an INT8 one.

Prints Markdown with the card's name and all versions. A part that stops does not stop the others. What cannot run here
is listed with its reason. Exit code 1 when a check fails, or when nothing was checked.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from gpu_parts.findings import Findings, Settings, report

from cast_sdk import bundled
from cast_sdk.errors import CastError
from cast_sdk.export.engines.tensorrt import build_engine
from cast_sdk.export.verification.engine_parity import compare
from cast_sdk.export.verification.photos import Inputs, read_inputs
from cast_sdk.runtime.backends.base import Backend
from cast_sdk.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cast_sdk.runtime.backends.tensorrt import TensorRTBackend
from cast_sdk.runtime.engine.api import FLAVORS, installed_flavors, load_tensorrt
from cast_sdk.runtime.engine.cuda import find_gpu, open_cuda
from cast_sdk.runtime.engine.onnx_metadata import read_description

GROWTH_MB = 16.0  # of GPU and of process memory over all frames; an allocation per frame would be gigabytes
Arrays = dict[str, np.ndarray]


class CompiledTorch:
    """The eager torch backend with its model compiled by torch.compile."""

    def __init__(self, eager: Any) -> None:
        import torch

        self.eager, self.info, self.device = eager, eager.info, eager.device
        self.compiled = torch.compile(eager._run._model)

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> Arrays:
        plain, self.eager._run._model = self.eager._run._model, self.compiled
        try:
            return self.eager.run(image, superpixels)
        finally:
            self.eager._run._model = plain


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
    if graph.record.flavor == "rtx":
        found.notes.append(f"{name}: TensorRT-RTX was asked to capture a CUDA graph; it does not say whether it did")
    else:
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


def builds_for_this_card(found: Findings, label: str, flavor: str) -> bool:
    """Whether a TensorRT knows the card; TensorRT-RTX leaves out Hopper (compute capability 9.0)."""
    gpu = find_gpu()
    if flavor != "rtx" or gpu is None or gpu.target in load_tensorrt("rtx").compute_capabilities():
        return True
    major, minor = gpu.compute_capability
    found.leave_out(label, f"TensorRT-RTX does not know compute capability {major}.{minor} ({gpu.name})")
    return False


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
        if not builds_for_this_card(found, label, flavor):
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


def describe_machine() -> str:
    """Card, driver, clocks and versions. Raises MissingDependencyError without a GPU."""
    cuda = open_cuda()
    driver, runtime = cuda.versions()
    packages = ", ".join(load_tensorrt(flavor).name for flavor in installed_flavors()) or "no TensorRT"
    return (
        f"{cuda.gpu().name} ({cuda.gpu().target}), CUDA driver {driver // 1000}.{driver % 1000 // 10}, "
        f"runtime {runtime // 1000}.{runtime % 1000 // 10}, {packages}, {describe_software()}, {clocks()}"
    )


def describe_software() -> str:
    try:
        import torch

        version = f"torch {torch.__version__}"
    except ImportError:
        version = "no torch"
    return f"{version}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"


def clocks() -> str:
    """Clocks and power mode, as far as the driver's tools tell."""
    for words in (
        ["nvidia-smi", "--query-gpu=clocks.sm,clocks.max.sm,power.limit", "--format=csv,noheader"],
        ["nvpmodel", "-q"],
    ):
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return "clocks " + " ".join(done.stdout.split())
    return "clocks unknown"


def run(arguments: argparse.Namespace, device: str = "cuda") -> Findings:
    """All that was asked for."""
    found = Findings()
    photos = [Path(path) for path in arguments.images] or bundled.photos()

    def inputs_of(spec: Any, info: Any) -> Inputs:
        return read_inputs(spec, (info.height, info.width), photos, skip_unreadable=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.ckpt or arguments.models:
            with_torch(found, arguments, folder, inputs_of, device)
        for path in map(Path, arguments.onnx):  # needs no torch
            runners = examine(found, path.stem, path, folder, inputs_of, None, device=device, count=arguments.frames)
            latency(found, path.stem, runners, inputs_of(*read_description(path)), arguments.rounds)
    return found


def with_torch(
    found: Findings, arguments: argparse.Namespace, folder: Path, inputs_of: Callable[[Any, Any], Inputs], device: str
) -> None:
    """Engines of models, exported here."""
    import torch

    from cast_sdk import create_model, export_onnx, load_model
    from cast_sdk.models import save_native
    from cast_sdk.runtime.backends.torch import TorchBackend

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
        eager = TorchBackend(checkpoint, device=device, eager=True)
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


def torch_parts(
    arguments: argparse.Namespace, settings: Settings, folder: Path
) -> dict[str, Callable[[Findings], None]]:
    """Every part by name, in the order that they run in."""

    def engines(found: Findings) -> None:
        if settings.dry:
            found.leave_out("engines", "a dry run has no GPU")
            return
        open_cuda()
        inner = run(arguments)
        for name in ("checks", "latencies", "failures", "left_out", "notes"):
            getattr(found, name).extend(getattr(inner, name))

    parts: dict[str, Callable[[Findings], None]] = {"engines": engines}
    try:
        from gpu_parts import cuda_parts, torch_parts, training_parts
    except ImportError as error:
        reason = str(error)
        return {"torch": lambda found: found.leave_out("all parts that need torch", reason), **parts}
    return {
        "cuda_calls": lambda found: cuda_parts.cuda_calls(found, settings),
        "golden": lambda found: torch_parts.golden(found, settings, folder),
        "sampler": lambda found: cuda_parts.sampler(found, settings),
        "latency": lambda found: torch_parts.latency(found, settings, folder),
        "memory": lambda found: torch_parts.memory(found, settings, folder),
        "overflow": lambda found: training_parts.overflow(found, settings),
        "training": lambda found: training_parts.steps(found, settings),
        "loader": lambda found: training_parts.loader(found, settings),
        **parts,
    }


DRY = Settings(
    device="cpu",
    model="cast_tiny",
    sizes={"embed_dim": 48, "depths": (1, 1, 1, 1), "num_heads": 3, "clusters": (16, 8, 4, 2), "num_classes": 5},
    batches=(1, 2),
    rounds=2,
    frames=20,
    train_batch=4,
    train_rounds=3,
    compiled=False,
)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="cast_tiny,cast_small", help="of the engines; random weights")
    parser.add_argument("--ckpt", help="a checkpoint instead of them")
    parser.add_argument("--onnx", action="append", default=[], metavar="FILE", help="also this graph (repeatable)")
    parser.add_argument("--precisions", default="fp32,fp16", help="of the engines")
    parser.add_argument("--images", nargs="*", default=[], help="images to compare on (default: the package's)")
    parser.add_argument("--frames", type=int, default=10_000, help="frames of the memory checks")
    parser.add_argument("--rounds", type=int, default=50, help="rounds of the latency tables")
    parser.add_argument("--parts", help="comma-separated: some parts alone")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no further part after so many")
    parser.add_argument("--dry-run", action="store_true", help="small sizes on the CPU")
    parser.add_argument("--out", type=Path, help="write the report there too")
    parser.add_argument("--json", type=Path, help="write it there as JSON")
    return parser.parse_args(words)


def main() -> None:
    arguments = parse()
    settings = DRY if arguments.dry_run else Settings(rounds=arguments.rounds, frames=arguments.frames)
    found = Findings()
    try:
        card = f"Dry run on the CPU, {describe_software()}" if settings.dry else describe_machine()
    except CastError as error:
        sys.exit(f"error: {error}")
    with tempfile.TemporaryDirectory() as temporary:
        parts = torch_parts(arguments, settings, Path(temporary))
        asked = arguments.parts.split(",") if arguments.parts else list(parts)
        unknown = sorted(set(asked) - set(parts))
        if unknown:
            sys.exit(f"error: There is no part {', '.join(unknown)}; choose from {', '.join(parts)}.")
        for name in asked:
            found.part(name, partial(parts[name], found), 60 * arguments.minutes)
    text = report(found, card)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": card, **found.to_dict()}, indent=2))
    if found.failures:
        sys.exit(f"{len(found.failures)} checks failed: " + "; ".join(found.failures))
    if not found.checks:
        sys.exit("Nothing was checked: see what could not run above.")


if __name__ == "__main__":
    main()
