"""One execution context of an engine: its buffers, stream and graph. Everything is allocated once."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import CastError, EngineError, InputError
from cast_sdk.runtime.engine.api import Log, TensorRT
from cast_sdk.runtime.engine.cuda import Buffer, Cuda
from cast_sdk.system.files import atomic_write

_MEMORY_REMEDY = "free GPU memory (close other programs, use a smaller batch), or rebuild the engine on this machine"


class Execution:
    """Runs an engine of static shapes on a stream of its own. Not thread-safe: one call at a time.

    Args:
        cuda: its current device is the engine's.
        engine: a deserialised ICudaEngine.
        cuda_graph: None: replay a CUDA graph where capturing works, with a warning where it does not; True: insist;
            False: never. TensorRT-RTX captures by itself when asked to.
        runtime_cache: file of TensorRT-RTX's compiled kernels, so that the next start does not compile again.

    Attributes:
        shapes: shape of each tensor by name, inputs first; `dtypes` likewise, NumPy's names.
        timing: milliseconds of the last run: GPU clock for "upload", "compute", "download" and "gpu" (all three),
            and "wall" as the caller waited.
        uses_graph: whether runs replay a CUDA graph.
    """

    def __init__(
        self,
        trt: TensorRT,
        cuda: Cuda,
        engine: Any,
        log: Log,
        *,
        cuda_graph: bool | None = None,
        runtime_cache: Path | None = None,
    ) -> None:
        self._trt, self._cuda, self._log, self._engine = trt, cuda, log, engine
        self._graph: Any = None
        self._kernels: Any = None  # TensorRT-RTX's IRuntimeCache
        self._cache_file = runtime_cache
        self.uses_graph = False
        self.timing: dict[str, float] = {}
        self._resources = contextlib.ExitStack()
        self._finalizer = weakref.finalize(self, self._resources.close)
        try:
            self._context = self._create_context(cuda_graph)
            self._stream = cuda.stream()
            self._resources.callback(cuda.call, "cudaStreamDestroy", self._stream)
            self._events = [cuda.event() for _ in range(4)]
            for event in self._events:
                self._resources.callback(cuda.call, "cudaEventDestroy", event)
            self._allocate()
            self._warm_up()
            if cuda_graph is not False and trt.flavor == "tensorrt":
                self._capture(insist=cuda_graph is True)
            self.save_kernels()
        except BaseException:
            self.close()
            raise

    # set-up ----------------------------------------------------------------------------------------------------------

    def _create_context(self, cuda_graph: bool | None) -> Any:
        self._log.clear()
        if self._trt.flavor == "rtx":
            config = self._engine.create_runtime_config()
            strategy = self._trt.member("CudaGraphStrategy", "WHOLE_GRAPH_CAPTURE")
            if cuda_graph is not False and strategy is not None:
                config.cuda_graph_strategy = strategy
                self.uses_graph = True
            elif cuda_graph is True:
                raise InputError(f"{self._trt.name} cannot replay CUDA graphs.", remedy="use cuda_graph=None")
            if self._cache_file is not None:
                self._kernels = config.create_runtime_cache()
                if self._cache_file.is_file() and not self._kernels.deserialize(self._cache_file.read_bytes()):
                    self._cache_file.unlink(missing_ok=True)  # of another driver; it is written anew below
                if not config.set_runtime_cache(self._kernels):
                    warnings.warn(
                        f"kernels are compiled again at the next start: {self._trt.name} refuses the cache",
                        RuntimeWarning,
                        stacklevel=5,
                    )
                    self._kernels = None
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(
                f"{self._trt.name} cannot create an execution context.", found=self._log.tail(), remedy=_MEMORY_REMEDY
            )
        return context

    def _allocate(self) -> None:
        self._inputs: dict[str, Buffer] = {}
        self._outputs: dict[str, Buffer] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        engine, input_mode = self._engine, self._trt.module.TensorIOMode.INPUT
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape = tuple(int(side) for side in engine.get_tensor_shape(name))
            if any(side < 0 for side in shape):
                raise EngineError(
                    f"The shape of {name} is not fixed in this engine: {list(shape)}.",
                    remedy="build the engine with cast-export, which fixes the batch",
                )
            dtype = self._trt.numpy_name(engine.get_tensor_dtype(name))
            buffer = Buffer(self._cuda, shape, dtype)
            self._resources.callback(buffer.free)
            target = self._inputs if engine.get_tensor_mode(name) == input_mode else self._outputs
            target[name], self.shapes[name], self.dtypes[name] = buffer, shape, dtype
            if not self._context.set_tensor_address(name, buffer.device):
                raise EngineError(f"TensorRT does not accept the memory of {name}.", found=self._log.tail())

    def _warm_up(self, runs: int = 2) -> None:
        """First runs load kernels (TensorRT-RTX compiles them) and allocate; a graph can be captured only after."""
        rng = np.random.default_rng(0)
        for name, buffer in self._inputs.items():
            if name == "image":
                buffer.host[...] = rng.integers(0, 256, buffer.host.shape, np.uint8)
            else:
                buffer.host[...] = 0  # every pixel in superpixel 0
        for _ in range(runs):
            self._execute()

    def _capture(self, insist: bool) -> None:
        """Record one run in a graph and trust it only if it gives what the plain run gave."""
        plain = {name: buffer.host.copy() for name, buffer in self._outputs.items()}
        try:
            self._graph = self._record()
            self._execute()
            different = [name for name, buffer in self._outputs.items() if not nearly_equal(plain[name], buffer.host)]
            if different:
                raise EngineError(
                    "The CUDA graph gives other results than a plain run.",
                    found=f"other values in {', '.join(different)}",
                )
        except CastError as error:
            self._graph = None
            if insist:
                raise
            warnings.warn(f"running without a CUDA graph: {error.found or error.problem}", RuntimeWarning, stacklevel=4)
            self._execute()  # leaves the stream in order, or says why not
        self.uses_graph = self._graph is not None

    def _record(self) -> Any:
        cuda, graph = self._cuda, None
        cuda.begin_capture(self._stream)
        try:
            enqueued = self._context.execute_async_v3(self._stream)
        finally:
            # A capture must be ended whatever happened, or the stream stays unusable.
            try:
                graph = cuda.end_capture(self._stream)
            except EngineError:
                cuda.forget_error()
        if not enqueued or not graph:
            raise EngineError("The engine cannot be captured in a CUDA graph.", found=self._log.tail(3))
        self._resources.callback(cuda.call, "cudaGraphDestroy", graph)
        executable = cuda.instantiate(graph)
        self._resources.callback(cuda.call, "cudaGraphExecDestroy", executable)
        return executable

    # running ---------------------------------------------------------------------------------------------------------

    def run(self, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Run once.

        Args:
            feed: one array per input of the engine, of its shape and dtype.

        Returns:
            New arrays by output name.

        Raises:
            EngineError: when TensorRT or CUDA refuse the run, with the last log lines.
        """
        start = perf_counter()
        for name, buffer in self._inputs.items():
            np.copyto(buffer.host, feed[name], casting="no")
        self._execute()
        outputs = {name: buffer.host.copy() for name, buffer in self._outputs.items()}
        self.timing["wall"] = (perf_counter() - start) * 1e3
        return outputs

    def _execute(self) -> None:
        cuda, stream, events = self._cuda, self._stream, self._events
        cuda.record(events[0], stream)
        for buffer in self._inputs.values():
            cuda.copy_to_device(buffer, stream)
        cuda.record(events[1], stream)
        if self._graph is not None:
            cuda.launch(self._graph, stream)
        elif not self._context.execute_async_v3(stream):
            # The output buffers hold the previous frame now: never hand them out.
            raise EngineError("TensorRT refuses the run.", found=self._log.tail(), remedy=_MEMORY_REMEDY)
        cuda.record(events[2], stream)
        for buffer in self._outputs.values():
            cuda.copy_to_host(buffer, stream)
        cuda.record(events[3], stream)
        cuda.synchronize(stream)
        stages = ("upload", "compute", "download")
        self.timing = {
            stage: cuda.elapsed_ms(first, second)
            for stage, first, second in zip(stages, events[:-1], events[1:], strict=True)
        }
        self.timing["gpu"] = cuda.elapsed_ms(events[0], events[-1])

    # the end ---------------------------------------------------------------------------------------------------------

    def save_kernels(self) -> None:
        """Keep TensorRT-RTX's compiled kernels for the next start. A cache that cannot be written is only a warning."""
        if self._kernels is None or self._cache_file is None or self._cache_file.is_file():
            return
        data = self._kernels.serialize()
        if data is None:
            warnings.warn(
                f"kernels are compiled again at the next start: {self._trt.name} gives none to keep",
                RuntimeWarning,
                stacklevel=3,
            )
            return
        try:
            self._cache_file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._cache_file) as temporary:
                temporary.write_bytes(bytes(data))
        except (OSError, CastError) as error:
            warnings.warn(f"kernels are compiled again at the next start: {error}", RuntimeWarning, stacklevel=3)

    def close(self) -> None:
        """Free graph, buffers, stream and context. Twice is fine."""
        self._graph = None
        self._finalizer()
        self._context = self._kernels = self._engine = None


def nearly_equal(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> bool:
    """Equal but for the rounding of a differently scheduled reduction, and the few labels that it can move."""
    if first.dtype.kind == "f":
        return bool(np.allclose(first, second, rtol=1e-2, atol=1e-2 * max(float(np.abs(first).max()), 1e-6)))
    return bool(np.mean(first == second) >= 0.99)
