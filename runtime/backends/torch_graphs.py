"""A module of static shapes on a GPU through torch: buffers that are made once, a stream of its own, CUDA graphs."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import CastError, CudaError, EngineError
from cast_sdk.runtime.backends.torch_settings import exact_float32
from cast_sdk.runtime.engine.execution import nearly_equal

log = logging.getLogger(__name__)
MAX_SIZES = 4  # batch sizes that keep their buffers and graph; each holds the memory of a whole run
Arrays = dict[str, npt.NDArray[Any]]
Port = tuple[tuple[int, ...], str]  # shape without the batch, and NumPy's name of the dtype


class TorchGpu:
    """What torch does on a GPU, on one stream."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._stream = torch.cuda.Stream(self.device)
        torch.cuda.synchronize(self.device)  # the weights come by another stream

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Memory of the host that is copied while the host goes on."""
        return self.torch.empty(shape, dtype=dtype, pin_memory=True)

    def on_stream(self) -> contextlib.AbstractContextManager[Any]:
        """Within, work is queued on the stream."""
        stream: contextlib.AbstractContextManager[Any] = self.torch.cuda.stream(self._stream)
        return stream

    def event(self) -> Any:
        return self.torch.cuda.Event(enable_timing=True)

    def wait(self) -> None:
        """Until everything on the stream is done."""
        self._stream.synchronize()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` queues in a CUDA graph; calling the result queues it again."""
        graph = self.torch.cuda.CUDAGraph()
        # Thread-local: calls of other threads, such as another model's allocation, do not break this capture.
        with self.torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            work()
        replay: Callable[[], None] = graph.replay
        return replay

    def release(self) -> None:
        """Give memory that nothing holds back to the GPU."""
        self.torch.cuda.empty_cache()


class StaticRuns:
    """Runs a module, batch size by batch size. Not thread-safe: one call at a time.

    The first `MAX_SIZES` batch sizes keep buffers and a CUDA graph each; others run from buffers of the moment.

    Args:
        module: takes the inputs in order and gives a tuple of the outputs; on the GPU, in evaluation.
        inputs: shape without the batch and dtype of each input by name.
        outputs: names of the outputs.
        gpu: a `TorchGpu`.
        cuda_graph: None: replay a CUDA graph where capturing works, with a warning where it does not; True: insist;
            False: never.

    Attributes:
        timing: milliseconds of the last run: GPU clock for "upload", "compute", "download" and "gpu" (all three), and
            "wall" as the caller waited.
    """

    def __init__(
        self,
        module: Callable[..., Sequence[Any]],
        inputs: Mapping[str, Port],
        outputs: Sequence[str],
        gpu: Any,
        *,
        cuda_graph: bool | None = None,
    ) -> None:
        self._module, self._inputs, self._outputs, self._gpu = module, dict(inputs), tuple(outputs), gpu
        self._cuda_graph = cuda_graph
        self._runs: dict[int, _Run] = {}
        self._said = False
        self.timing: dict[str, float] = {}

    @property
    def graphs(self) -> list[int]:
        """Batch sizes that replay a CUDA graph."""
        return [batch for batch, run in self._runs.items() if run.replay is not None]

    def run(self, feed: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run once.

        Args:
            feed: one array for each input, all of the same batch.

        Returns:
            New arrays by output name.

        Raises:
            CudaError: when torch or CUDA refuse the run.
            EngineError: when a graph was insisted on and cannot be had.
        """
        start = perf_counter()
        batch = len(next(iter(feed.values())))
        torch = self._gpu.torch
        try:
            with torch.inference_mode():
                run = self._run_for(batch)
                outputs = run(feed)
        except CastError:
            raise
        except RuntimeError as error:  # torch.OutOfMemoryError and torch.AcceleratorError are such
            raise CudaError(
                f"The network failed on the GPU, with {batch} image{'s' if batch > 1 else ''}.",
                found=_first_line(error),
                remedy="free GPU memory (close other programs, use a smaller batch); cast-doctor checks the driver",
            ) from error
        self.timing = {**run.timing, "wall": (perf_counter() - start) * 1e3}
        return outputs

    def _run_for(self, batch: int) -> _Run:
        if batch in self._runs:
            return self._runs[batch]
        run = _Run(self._module, self._inputs, self._outputs, self._gpu, batch)
        if len(self._runs) < MAX_SIZES:
            run.prepare(self._cuda_graph)
            self._runs[batch] = run
        elif not self._said:
            self._said = True
            kept = ", ".join(map(str, self._runs))
            log.info("batches of %d run without buffers and graph of their own: those of %s have them", batch, kept)
        return run

    def close(self) -> None:
        """Free graphs and buffers."""
        self._runs.clear()
        self._module = _closed
        self._gpu.release()


class _Run:
    """One batch size: its buffers, and its graph once it is captured."""

    def __init__(
        self,
        module: Callable[..., Sequence[Any]],
        inputs: dict[str, Port],
        outputs: tuple[str, ...],
        gpu: Any,
        batch: int,
    ) -> None:
        torch = gpu.torch
        self._module, self._names, self._gpu, self._batch = module, outputs, gpu, batch
        self._events = [gpu.event() for _ in range(4)]
        self.replay: Callable[[], None] | None = None
        self.timing: dict[str, float] = {}
        with torch.inference_mode(False):  # buffers that every later run may write into
            self._hosts = {
                name: gpu.pinned((batch, *shape), getattr(torch, dtype)) for name, (shape, dtype) in inputs.items()
            }
            self._inputs = [torch.empty_like(host, device=gpu.device) for host in self._hosts.values()]
        self._views = {name: host.numpy() for name, host in self._hosts.items()}
        self._results: list[Any] = []  # on the GPU; made by the first run, which knows their shapes
        self._downloads: dict[str, Any] = {}

    def __call__(self, feed: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        for name, view in self._views.items():
            np.copyto(view, feed[name], casting="no")
        return self._execute()

    def prepare(self, cuda_graph: bool | None) -> None:
        """Warm up, and capture a graph that gives what a plain run gives.

        Raises:
            EngineError: when `cuda_graph` is True and there is none to be had.
        """
        rng = np.random.default_rng(0)
        for name, view in self._views.items():
            view[...] = rng.integers(0, 256, view.shape, np.uint8) if name == "image" else 0
        self._execute()  # loads kernels, compiles Triton's and chooses algorithms; a graph can be captured only after
        plain = self._execute()
        if cuda_graph is False:
            return
        try:
            self.replay = self._gpu.capture(self._compute)
            with self._gpu.on_stream():
                for buffer in self._results:
                    buffer.zero_()  # a graph that does nothing would leave what the plain run gave
            found = self._execute()
            different = [name for name, value in plain.items() if not nearly_equal(value, found[name])]
            if different:
                raise EngineError(
                    "The CUDA graph gives other results than a plain run.",
                    found=f"other values in {', '.join(different)}",
                )
        except (RuntimeError, EngineError) as error:
            self.replay = None
            reason = (error.found or error.problem) if isinstance(error, EngineError) else _first_line(error)
            if cuda_graph:
                raise EngineError(
                    f"A batch of {self._batch} cannot be captured in a CUDA graph.",
                    found=reason,
                    remedy="leave cuda_graph out, to run without one",
                ) from error
            warnings.warn(
                f"batches of {self._batch} run without a CUDA graph, which is slower: {reason}",
                RuntimeWarning,
                stacklevel=2,
            )
            self._execute()  # leaves the stream in order, or says why not

    def _compute(self) -> None:
        with exact_float32(self._gpu.torch):
            values = self._module(*self._inputs)
        if not self._results:
            torch = self._gpu.torch
            with torch.inference_mode(False):
                self._results = [torch.empty(value.shape, dtype=value.dtype, device=value.device) for value in values]
                self._downloads = {
                    name: self._gpu.pinned(tuple(value.shape), value.dtype)
                    for name, value in zip(self._names, values, strict=True)
                }
        for buffer, value in zip(self._results, values, strict=True):
            buffer.copy_(value)

    def _execute(self) -> Arrays:
        events = self._events
        with self._gpu.on_stream():
            events[0].record()
            for device, host in zip(self._inputs, self._hosts.values(), strict=True):
                device.copy_(host, non_blocking=True)
            events[1].record()
            if self.replay is not None:
                self.replay()
            else:
                self._compute()
            events[2].record()
            for host, device in zip(self._downloads.values(), self._results, strict=True):
                host.copy_(device, non_blocking=True)
            events[3].record()
        self._gpu.wait()
        stages = ("upload", "compute", "download")
        self.timing = {
            stage: first.elapsed_time(second)
            for stage, first, second in zip(stages, events[:-1], events[1:], strict=True)
        }
        self.timing["gpu"] = events[0].elapsed_time(events[-1])
        return {name: host.numpy().copy() for name, host in self._downloads.items()}


def _closed(*inputs: Any) -> Sequence[Any]:
    raise RuntimeError("the network is closed")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
