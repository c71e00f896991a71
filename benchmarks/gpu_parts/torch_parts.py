"""The torch backend: golden fixtures, agreement and time of every way to run a model, memory over many frames."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cast_sdk import bundled
from cast_sdk.export.verification.engine_parity import compare
from cast_sdk.export.verification.photos import Inputs, read_inputs
from gpu_parts.cuda_parts import clocked
from gpu_parts.findings import Findings, Settings

TESTS = Path(__file__).parents[2] / "tests"
GROWTH_MB = 16.0  # of GPU and of process memory over all frames; an allocation per frame would be gigabytes


def saved(settings: Settings, folder: Path) -> Path:
    """A checkpoint of the settings' model with random weights."""
    import torch

    from cast_sdk.models import create_model, save_native

    path = folder / f"{settings.model}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        save_native(create_model(settings.model, **settings.sizes).eval(), path)
    return path


def prepared(backend: Any, count: int) -> Inputs:
    photos = bundled.photos()[:count]
    return read_inputs(backend.spec, (backend.info.height, backend.info.width), photos, skip_unreadable=True)


def agreement(found: Findings, what: str, precision: str, pairs: list[Any]) -> None:
    """Judge pairs (expected, found, superpixels) of outputs by the bars of a precision.

    Below fp32 the errors alone: labels of random weights are near ties (docs/export.md judges trained ones).
    """
    checks = compare(precision, pairs)
    short = [str(check) for check in checks if not check.passed and (precision == "fp32" or check.measure == "error")]
    error = max(check.value for check in checks if check.measure == "error")
    equal = [check.value for check in checks if check.measure == "superpixels"]
    text = f"error {error:.1e}" + (f", least share of equal labels {min(equal):.2%}" if equal else "")
    found.check(what, not short, "; ".join([text, *short]))


def golden(found: Findings, settings: Settings, folder: Path) -> None:
    """The reference's own outputs, through the torch backend on the device."""
    import torch

    from cast_sdk.models import save_native
    from cast_sdk.runtime.backends.torch import TorchBackend

    if not (TESTS / "golden").is_dir():
        found.leave_out("golden fixtures", f"{TESTS / 'golden'} is not there: run this in a checkout")
        return
    sys.path[:0] = [str(TESTS), str(TESTS / "models")]
    from golden_tools import inputs, load_case
    from test_cases import make

    names = ("tiny_cast",) if settings.dry else ("tiny_cast", "tiny_cast_deit", "cast_small", "cast_deit_small")
    for name in names:
        case, meta = load_case(f"case_{name}")
        model, _ = make(meta["builder"], meta["salt"])
        path = folder / f"golden_{name}.safetensors"
        save_native(model, path)
        images = inputs()[meta["images"]][case["image_index"]]
        labels = inputs()[meta["labels"]][case["image_index"]].astype(np.int32)
        backend = TorchBackend(path, device=settings.device)
        full = [row for row in range(len(images)) if case["num_tokens"][row] == backend.info.num_superpixels]
        full = full[:2] if settings.dry else full
        out = backend.run(np.ascontiguousarray(images[full]), np.ascontiguousarray(labels[full]))
        expected = case["logits"][full]
        error = float(np.abs(out["logits"] - expected).max() / np.abs(expected).max())
        equal = min(float(np.mean(out[f"level{level}"] == case["levels"][full, :, level - 1])) for level in range(1, 5))
        passed = bool(full) and error <= 1e-3 and equal >= 0.98
        found.check(f"golden {name}, {len(full)} images", passed, f"logits {error:.1e}, equal labels {equal:.2%}")
        backend.close()
        del model
    torch.manual_seed(0)


def latency(found: Findings, settings: Settings, folder: Path) -> None:
    """Eager, compiled and in a CUDA graph, by batch and precision, each compared and timed."""
    import torch

    from cast_sdk.runtime.backends.torch import TorchBackend

    path, device = saved(settings, folder), settings.device
    eager = TorchBackend(path, device=device, eager=True)
    given = prepared(eager, 3 if settings.dry else 8)
    on_cpu = TorchBackend(path, device="cpu", eager=True)
    rows = [(given.image[n : n + 1], given.superpixels[n : n + 1]) for n in range(len(given))]
    expected = [on_cpu.run(*row) for row in rows]

    def judge(what: str, precision: str, run: Callable[..., Any]) -> None:
        pairs = [(out, run(*row), row[1]) for out, row in zip(expected, rows, strict=True)]
        agreement(found, f"{what}, against fp32 on the CPU", precision, pairs)

    runners: dict[str, Callable[..., Any]] = {"eager fp32": eager.run}
    judge("eager fp32", "fp32", eager.run)
    precisions = settings.precisions
    if settings.dry:
        from cast_sdk.system.processor import bfloat16_units

        precisions = ("fp32", "bf16") if bfloat16_units() else ("fp32",)
        found.leave_out("fp16 and CUDA graphs", "a dry run has no GPU")
    for precision in precisions:
        for graph in (None,) if settings.dry else (False, True):
            what = f"static {precision}" + (
                {False: ", no CUDA graph", True: ", CUDA graph"}[graph] if graph is not None else ""
            )
            backend = found.attempt(
                what, lambda p=precision, g=graph: TorchBackend(path, device=device, precision=p, cuda_graph=g)
            )
            if backend is not None:
                judge(what, precision, backend.run)
                runners[what] = backend.run
    reference = reference_way(path, device)
    runners["the reference's way (float64 sampler, TF32 convolutions as torch allows)"] = reference
    if settings.compiled:
        compiled = found.attempt("torch.compile", lambda: compiled_run(path, device, rows[0]))
        if compiled is not None:
            judge("torch.compile fp32", "fp32", compiled)
            runners["torch.compile fp32"] = compiled
    else:
        found.leave_out("torch.compile", "left out of a dry run: compiling takes minutes")
    for batch in settings.batches:
        order = np.arange(batch) % len(given)
        image, superpixels = np.ascontiguousarray(given.image[order]), np.ascontiguousarray(given.superpixels[order])
        for name, run in runners.items():
            if batch > 1 and name.startswith("torch.compile"):
                continue  # it would be compiled again for each batch
            values = found.attempt(
                f"{name}, batch {batch}",
                lambda r=run, i=image, s=superpixels: clocked(lambda: r(i, s), settings.rounds, torch),
            )
            if values is not None:
                found.latencies.append((f"{settings.model}, batch {batch}", name, values))


def reference_way(path: Path, device: str) -> Callable[..., Any]:
    """The training model with the reference's float64 loops, read and checked as it goes."""
    import torch

    from cast_sdk.models import load_model, sampling

    model = load_model(path).eval().to(device)
    shape = (1, 3, 1, 1)
    mean, std = (torch.tensor(v, device=device).view(shape) for v in (model.spec.mean, model.spec.std))

    def run(image: np.ndarray, superpixels: np.ndarray) -> dict[str, np.ndarray]:
        fused, sampling.fused_kernels = sampling.fused_kernels, lambda: None
        try:
            with torch.inference_mode():
                pixels = torch.from_numpy(image).to(device).permute(0, 3, 1, 2).float() / 255
                out = model((pixels - mean) / std, torch.from_numpy(superpixels).to(device).long())
        finally:
            sampling.fused_kernels = fused
        return {"embedding": out.embedding.cpu().numpy()}

    return run


def compiled_run(path: Path, device: str, row: Any) -> Callable[..., Any]:
    """The eager backend with its model compiled, after its first run."""
    import torch

    from cast_sdk.runtime.backends.torch import TorchBackend

    backend = TorchBackend(path, device=device, eager=True)
    backend._run._model = torch.compile(backend._run._model)
    backend.run(*row)
    return backend.run


def memory(found: Findings, settings: Settings, folder: Path) -> None:
    """No memory is gained while frames are run, with batches of several sizes between them."""
    import resource

    import torch

    from cast_sdk.runtime.backends.torch import TorchBackend

    def used() -> tuple[float, float]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024.0 if sys.platform == "linux" else 1e6)
        return (0.0 if settings.dry else -torch.cuda.mem_get_info()[0] / 1e6), peak

    backend = TorchBackend(saved(settings, folder), device=settings.device)
    given = prepared(backend, 3)
    sizes = (1, 1, 1, 2, 3)

    def run(count: int) -> float:
        start = perf_counter()
        for number in range(count):
            batch = sizes[number % len(sizes)] if number < 100 or number % 50 == 0 else 1
            backend.run(given.image[:batch], given.superpixels[:batch])
        return perf_counter() - start

    run(min(100, settings.frames))
    before = used()
    seconds = run(settings.frames)
    gained = [after - first for after, first in zip(used(), before, strict=True)]
    passed = all(value <= GROWTH_MB for value in gained)
    what = f"memory over {settings.frames} frames"
    found.check(
        what, passed, f"GPU {gained[0]:+.1f} MB, process {gained[1]:+.1f} MB, {settings.frames / seconds:.0f}/s"
    )
    backend.close()
