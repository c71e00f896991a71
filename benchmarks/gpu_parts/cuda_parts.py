"""Every CUDA call that the engines' execution makes, and the sampler's kernel, without TensorRT."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cast_sdk.errors import CudaError
from gpu_parts.findings import Findings, Settings

SHAPES = ((1, 2, 5, 2), (3, 17, 33, 9), (2, 65, 384, 33), (4, 197, 384, 65), (2, 1025, 384, 321))


def open_cuda(settings: Settings) -> Any:
    """The CUDA runtime, or the tests' stand-in for it in a dry run."""
    from cast_sdk.runtime.engine import cuda

    if not settings.dry:
        return cuda.open_cuda()
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from fake_tensorrt import FakeCudart

    return cuda.Cuda(FakeCudart())


def cuda_calls(found: Findings, settings: Settings) -> None:
    """Memory, copies, events, graphs and errors through libcudart."""
    from cast_sdk.runtime.engine.cuda import Buffer

    cuda = open_cuda(settings)
    cuda.set_device(0)
    stream, events, free = cuda.stream(), [cuda.event(), cuda.event()], cuda.memory()[0]
    rng = np.random.default_rng(0)
    for size in (1, 4097, 1 << 20) if settings.dry else (1, 4097, 1 << 20, 64 << 20):
        buffer, data = Buffer(cuda, (size,), "uint8"), rng.integers(0, 256, size, np.uint8)
        buffer.host[...] = data
        cuda.record(events[0], stream)
        cuda.copy_to_device(buffer, stream)
        cuda.record(events[1], stream)
        cuda.synchronize(stream)
        upload, buffer.host[...] = cuda.elapsed_ms(*events), 0
        cuda.copy_to_host(buffer, stream)
        cuda.synchronize(stream)
        found.check(f"{size} bytes to the card and back", np.array_equal(buffer.host, data), f"{upload:.4f} ms up")
        buffer.free()
        buffer.free()
    try:
        cuda.call("cudaMalloc", 1 << 46)
        found.check("too much memory is refused", False, "it was given")
    except CudaError as error:
        found.check("too much memory is refused", True, str(error.found))
    cuda.forget_error()
    if settings.dry:
        found.leave_out("captures of CUDA graphs", "the stand-in of a dry run captures nothing")
    else:
        captures(found, cuda, stream)
    for event in events:
        cuda.call("cudaEventDestroy", event)
    cuda.call("cudaStreamDestroy", stream)
    gained = free - cuda.memory()[0]
    found.check("CUDA memory is given back", gained <= 4 << 20, f"{gained} bytes are missing")


def captures(found: Findings, cuda: Any, stream: int) -> None:
    """A capture that breaks leaves the stream usable, and other threads may allocate during one."""
    from cast_sdk.runtime.engine.cuda import Buffer

    cuda.begin_capture(stream)
    for call in (cuda.synchronize, cuda.end_capture):  # the first is forbidden, so the second fails too
        try:
            call(stream)
        except CudaError:
            cuda.forget_error()
    buffer = Buffer(cuda, (1 << 20,), "uint8")
    cuda.copy_to_device(buffer, stream)
    cuda.synchronize(stream)
    found.check("a stream after a broken capture", True, "usable")
    cuda.begin_capture(stream)
    cuda.copy_to_host(buffer, stream)
    problems: list[str] = []

    def allocate() -> None:
        try:
            Buffer(cuda, (1 << 20,), "uint8").free()
        except CudaError as error:
            problems.append(str(error))

    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
    graph = cuda.end_capture(stream)
    executable = cuda.instantiate(graph)
    cuda.launch(executable, stream)
    cuda.synchronize(stream)
    found.check("another thread allocates during a capture", not problems, "; ".join(problems) or "allowed")
    cuda.call("cudaGraphExecDestroy", executable)
    cuda.call("cudaGraphDestroy", graph)
    buffer.free()


def sampler(found: Findings, settings: Settings) -> None:
    """The fused kernel picks what the loops pick, and how long both take."""
    import torch

    from cast_sdk.models import sampling

    if settings.dry:
        found.leave_out("the sampler's kernel", "a dry run has no GPU; the loops stand on both sides")
    elif sampling.fused_kernels() is None:
        found.leave_out("the sampler's kernel", "Triton cannot be imported")
        return
    different = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for images, points, channels, count in SHAPES[:3] if settings.dry else SHAPES:
            generator = torch.Generator().manual_seed(points)
            x = torch.randn(images, points, channels, generator=generator).to(settings.device, dtype)
            for name, loop in (
                ("float64", lambda x, count: sampling._by_differences(x.double(), count)),
                ("matrix", lambda x, count: sampling._by_matrix(sampling.squared_distances(x), count)),
            ):
                if not torch.equal(sampling.farthest_points(x, count, name), loop(x, count)):
                    different.append(f"{name} {dtype} {[images, points, channels, count]}")
    found.check("the sampler's kernel against the loops", not different, "; ".join(different) or "equal")
    for images, points, channels, count in () if settings.dry else ((1, 197, 384, 65), (64, 197, 384, 65), SHAPES[-1]):
        x = torch.randn(images, points, channels, device=settings.device)
        what = f"sampling {count} of {points}, batch {images}"
        runs = {
            "kernel, float64": lambda x=x, k=count: sampling.farthest_points(x, k),
            "kernel, matrix": lambda x=x, k=count: sampling.farthest_points(x, k, "matrix"),
            "loops, float64 (the reference's way)": lambda x=x, k=count: sampling._by_differences(x.double(), k),
        }
        for name, run in runs.items():
            found.latencies.append((what, name, clocked(run, 10, torch)))


def clocked(run: Any, rounds: int, torch: Any) -> list[float]:
    """Milliseconds of each of so many runs, after two more."""
    values = []
    for number in range(rounds + 2):
        start = perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if number >= 2:
            values.append((perf_counter() - start) * 1e3)
    return values
