"""Stand-ins for TensorRT versions and a GPU that a test machine does not have.

`make_module` gives a module with exactly the names that a real version has: `tensorrt_api.json` lists those of the
published Python bindings, so a removed flag or a method of a later version is an AttributeError here as there. A plan
is the .onnx behind a few bytes, and a run is ONNX Runtime on the "device" memory. `FakeCudart` is host memory behind
`CudartLibrary`'s convention. They test our logic; nothing about hardware.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

API = json.loads((Path(__file__).parent / "tensorrt_api.json").read_text())
MAGIC = b"stand-in plan\n"
LAST_CONFIG: dict = {}  # of the last build, by module name
_ELEMENTS = {1: "FLOAT", 2: "UINT8", 6: "INT32", 7: "INT64", 10: "HALF"}


class Behaviour:
    """What the stand-in does wrong."""

    lists_layers = True
    builds = True
    loads = True
    makes_context = True
    run_fails_at = None  # number of the run (from 1) that TensorRT refuses
    capture = "works"  # or "refused", "empty", "wrong"
    accepts_timing_cache = True


class FakeCudart:
    """Host memory and one stream, with the calls of `CudartLibrary`."""

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode(enum.IntEnum):
        cudaStreamCaptureModeThreadLocal = 1

    class cudaDeviceAttr(enum.IntEnum):
        cudaDevAttrComputeCapabilityMajor = 75
        cudaDevAttrComputeCapabilityMinor = 76

    def __init__(self, name: str = "Stand-in RTX", capability: tuple[int, int] = (8, 6), memory: int = 1 << 30) -> None:
        self.name, self.capability, self.free = name, capability, memory
        self.blocks: dict[int, ctypes.Array] = {}
        self.handles: set[int] = set()
        self.capturing: list | None = None
        self.graphs: dict[int, list] = {}
        self.clock, self._next = 0.0, 1000
        self.devices_set: list[int] = []

    def _handle(self) -> int:
        self._next += 1
        self.handles.add(self._next)
        return self._next

    def _drop(self, handle: int):
        self.handles.remove(handle)
        return (0,)

    def cudaGetDeviceCount(self):
        return 0, 1

    def cudaSetDevice(self, index):
        self.devices_set.append(index)
        return (0,)

    def cudaDeviceGetAttribute(self, kind, index):
        return 0, self.capability[kind - 75]

    def cudaGetDeviceProperties(self, index):
        return 0, types.SimpleNamespace(name=self.name.encode())

    def cudaMemGetInfo(self):
        return 0, self.free, 1 << 30

    def cudaGetErrorName(self, code):
        return 0, b"cudaErrorMemoryAllocation" if code == 2 else b"cudaErrorUnknown"

    def cudaGetErrorString(self, code):
        return 0, b"out of memory" if code == 2 else b"unknown error"

    def cudaGetLastError(self):
        return (0,)

    def cudaMalloc(self, size):
        if size > self.free:
            return 2, None
        self.free -= size
        block = ctypes.create_string_buffer(size)
        self.blocks[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    def cudaHostAlloc(self, size, flags):
        return self.cudaMalloc(size)

    def cudaFree(self, address):
        self.free += len(self.blocks.pop(address))
        return (0,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        ctypes.memmove(target, source, size)
        return (0,)

    def cudaStreamCreateWithFlags(self, flags):
        return 0, self._handle()

    def cudaStreamSynchronize(self, stream):
        return (0,)

    def cudaEventCreateWithFlags(self, flags):
        return 0, self._handle()

    def cudaEventRecord(self, event, stream):
        self.clock += 1.0
        self.events = {**getattr(self, "events", {}), event: self.clock}
        return (0,)

    def cudaEventElapsedTime(self, first, second):
        return 0, self.events[second] - self.events[first]

    def cudaStreamBeginCapture(self, stream, mode):
        self.capturing = []
        return (0,)

    def cudaStreamEndCapture(self, stream):
        recorded, self.capturing = self.capturing, None
        if not recorded:
            return 901, None
        handle = self._handle()
        self.graphs[handle] = recorded
        return 0, handle

    def cudaGraphInstantiateWithFlags(self, graph, flags):
        handle = self._handle()
        self.graphs[handle] = self.graphs[graph]
        return 0, handle

    def cudaGraphLaunch(self, executable, stream):
        for work in self.graphs[executable]:
            work()
        return (0,)

    cudaStreamDestroy = cudaEventDestroy = cudaGraphDestroy = cudaGraphExecDestroy = _drop


def make_module(version: str, cudart: FakeCudart, behaviour: Behaviour) -> types.ModuleType:
    """A module named tensorrt, tensorrt_rtx or tensorrt_lean with the names of e.g. "tensorrt 10.3"."""
    api = API[version]
    kind = version.split()[0]
    module = types.ModuleType({"rtx": "tensorrt_rtx", "lean": "tensorrt_lean"}.get(kind, kind))
    module.__version__ = api["version"]
    module.__file__ = f"/stand-in/{module.__name__}/__init__.py"
    for name, members in api["enums"].items():
        setattr(module, name, enum.IntEnum(name, members))
    parts = _parts(module, cudart, behaviour, rtx=kind == "rtx")
    for name, names in api["classes"].items():
        setattr(module, name, _prune(parts[name], set(names)) if name in parts else type(name, (), {}))
    return module


def install(monkeypatch, *versions: str, cudart: FakeCudart | None = None, behaviour: Behaviour | None = None):
    """Put stand-ins in place of the installed packages; every TensorRT that is not named is gone."""
    from cast_sdk.runtime.engine import api as tensorrt_api
    from cast_sdk.runtime.engine import cuda as cuda_memory

    cudart, behaviour = cudart or FakeCudart(), behaviour or Behaviour()
    modules = {m.__name__: m for m in (make_module(version, cudart, behaviour) for version in versions)}
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_lean"):
        monkeypatch.setitem(sys.modules, name, modules.get(name))  # None makes the import fail
    find = tensorrt_api.importlib.util.find_spec

    def find_spec(name, package=None):
        if name.startswith("tensorrt"):
            return object() if name in modules else None
        return find(name, package)

    monkeypatch.setattr(tensorrt_api.importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(cuda_memory, "cudart_libraries", lambda: iter([cudart]))
    return cudart, behaviour


def _prune(part: type, names: set[str]) -> type:
    """The class with no public name that the real one lacks, neither to read nor to assign."""

    def assign(self, name, value):
        if not name.startswith("_") and name not in names:
            raise AttributeError(f"{part.__name__} has no attribute {name!r}")
        object.__setattr__(self, name, value)

    kept = {name: value for name, value in vars(part).items() if name.startswith("_") or name in names}
    kept.pop("__dict__", None)
    kept.pop("__weakref__", None)
    return type(part.__name__, (), {**kept, "__setattr__": assign})


def _parts(module, cudart, behaviour, *, rtx: bool) -> dict[str, type]:
    error, verbose = 1, 4

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self):
            pass

        def log(self, severity, message):
            raise NotImplementedError

    class IProgressMonitor:
        def __init__(self):
            pass

        def phase_start(self, phase_name, parent_phase, num_steps):
            raise NotImplementedError

        phase_finish = step_complete = phase_start

    class ITensor:
        def __init__(self, name, shape):
            self._name, self.shape = name, shape

        @property
        def dtype(self):
            return module.DataType.FLOAT

    class ILayer:
        def __init__(self, node):
            self._node = node

        @property
        def type(self):
            return getattr(module.LayerType, {"MatMul": "MATRIX_MULTIPLY", "Conv": "CONVOLUTION"}.get(
                self._node.op_type, "CONSTANT"))  # fmt: skip

        def get_input(self, index):
            return ITensor(self._node.input[index], ())

    class INetworkDefinition:
        def __init__(self, flags):
            self._flags, self._model, self._inputs = flags, None, []

        @property
        def num_inputs(self):
            return len(self._inputs)

        @property
        def num_layers(self):
            return len(self._model.graph.node)

        def get_input(self, index):
            return self._inputs[index]

        def get_layer(self, index):
            return ILayer(self._model.graph.node[index])

    class OnnxParser:
        def __init__(self, network, logger):
            self._network = network

        @property
        def num_errors(self):
            return 0

        def parse_from_file(self, path):
            self._network._model = onnx.load(path)
            for tensor in self._network._model.graph.input:
                shape = tuple(d.dim_value or -1 for d in tensor.type.tensor_type.shape.dim)
                self._network._inputs.append(ITensor(tensor.name, shape))
            return True

    class ITimingCache:
        def __init__(self, data):
            self._data = data

        def serialize(self):
            return self._data + b"+"

    class IBuilderConfig:
        def __init__(self):
            self._flags, self._pools, self._targets = set(), {}, []

        def set_flag(self, flag):
            self._flags.add(flag)

        def clear_flag(self, flag):
            self._flags.discard(flag)

        def set_memory_pool_limit(self, pool, limit):
            self._pools[pool] = limit

        def create_timing_cache(self, data):
            return module.ITimingCache(data)

        def set_timing_cache(self, cache, ignore_mismatch):
            return behaviour.accepts_timing_cache

        def set_compute_capability(self, capability, index):
            self._targets.append(capability)
            return True

    class Builder:
        def __init__(self, logger):
            self._logger = logger

        def create_network(self, flags):
            return module.INetworkDefinition(flags)

        def create_builder_config(self):
            LAST_CONFIG[module.__name__] = module.IBuilderConfig()
            return LAST_CONFIG[module.__name__]

        def build_serialized_network(self, network, config):
            monitor = config.progress_monitor
            monitor.phase_start("Building engine", None, 2)
            going = monitor.step_complete("Building engine", 0)
            monitor.phase_finish("Building engine")
            if not behaviour.builds or not going:
                self._logger.log(error, "[stand-in] Error Code 10: Could not find any implementation for node X")
                return None
            if behaviour.lists_layers:
                self._logger.log(verbose, _layers(network._model, rtx))
            for tensor, value in zip(network._inputs, network._model.graph.input, strict=True):
                value.type.tensor_type.shape.dim[0].dim_value = tensor.shape[0]
            return MAGIC + network._model.SerializeToString()

    class IRuntimeCache:
        def __init__(self):
            self._data = b""

        def deserialize(self, data):
            self._data = bytes(data)
            return self._data == b"kernels"

        def serialize(self):
            return b"kernels"

    class IRuntimeConfig:
        def create_runtime_cache(self):
            return module.IRuntimeCache()

        def set_runtime_cache(self, cache):
            return True

    class IExecutionContext:
        def __init__(self, engine):
            self._engine, self._addresses, self._runs = engine, {}, 0

        def set_tensor_address(self, name, address):
            self._addresses[name] = address
            return address in cudart.blocks

        def execute_async_v3(self, stream):
            assert stream in cudart.handles
            self._runs += 1
            if self._runs == behaviour.run_fails_at:
                self._engine._logger.log(error, "[stand-in] Error Code 1: Cask (Cask convolution execution)")
                return False
            if cudart.capturing is None:
                self._compute()
            elif behaviour.capture == "refused":
                self._engine._logger.log(error, "[stand-in] operation not permitted when stream is capturing")
                return False
            elif behaviour.capture != "empty":
                cudart.capturing.append(self._compute if behaviour.capture == "works" else lambda: None)
                if behaviour.capture == "wrong":
                    for name in self._engine._outputs:
                        cudart.capturing.append(lambda name=name: self._write(name, 0 * self._read(name) + 77))
            return True

        def _read(self, name):
            dtype, shape = self._engine._tensors[name]
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            memory = (ctypes.c_ubyte * size).from_address(self._addresses[name])
            return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

        def _write(self, name, value):
            self._read(name)[...] = value

        def _compute(self):
            session = self._engine._session
            feed = {item.name: self._read(item.name) for item in session.get_inputs()}
            for name, value in zip(self._engine._outputs, session.run(self._engine._outputs, feed), strict=True):
                self._write(name, value)

    class ICudaEngine:
        def __init__(self, data, logger):
            self._logger = logger
            model = onnx.load_from_string(data)
            self._session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
            self._inputs = [item.name for item in model.graph.input]
            self._outputs = [item.name for item in model.graph.output]
            self._types, self._tensors = {}, {}
            batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
            for item in (*model.graph.input, *model.graph.output):
                tensor = item.type.tensor_type
                shape = tuple(d.dim_value or batch for d in tensor.shape.dim)
                dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
                self._types[item.name] = getattr(module.DataType, _ELEMENTS[tensor.elem_type])
                self._tensors[item.name] = (dtype, shape)

        @property
        def num_io_tensors(self):
            return len(self._tensors)

        def get_tensor_name(self, index):
            return list(self._tensors)[index]

        def get_tensor_shape(self, name):
            return self._tensors[name][1]

        def get_tensor_dtype(self, name):
            return self._types[name]

        def get_tensor_mode(self, name):
            return module.TensorIOMode.INPUT if name in self._inputs else module.TensorIOMode.OUTPUT

        def create_runtime_config(self):
            return module.IRuntimeConfig()

        def create_execution_context(self, config=None):
            if not behaviour.makes_context:
                self._logger.log(error, "[stand-in] Error Code 2: OutOfMemory (Requested size was 1 GB)")
                return None
            return module.IExecutionContext(self)

    class Runtime:
        def __init__(self, logger):
            self._logger = logger
            self.engine_host_code_allowed = False

        def get_engine_validity(self, plan):
            return module.EngineValidity.VALID, 0

        def deserialize_cuda_engine(self, plan):
            if not behaviour.loads or not plan.startswith(MAGIC):
                self._logger.log(error, "[stand-in] Serialization assertion stdVersionRead == kVERSION failed")
                return None
            return module.ICudaEngine(bytes(plan)[len(MAGIC) :], self._logger)

    return {name: part for name, part in locals().items() if isinstance(part, type)}


def _layers(model: onnx.ModelProto, rtx: bool) -> str:
    """A layer list in the words of the real ones, with the types that the graph's weights have."""
    names = {1: "Float", 10: "Half", 3: "Int8"}
    constants = {item.name: names.get(item.data_type, "Int32") for item in model.graph.initializer}
    lines = ["Layers:"]
    for node in model.graph.node:
        for name in node.input:
            if node.op_type == "MatMul" and name in constants:
                dtype = constants[name]
                tensor = f"[ {{ Name: x, Dimensions: [1,3], Format/Datatype: {dtype} }}]"
                weight = f"Constants: [ {{ Name: {name}, Dimensions: [3,8], Strides: [8,1], Datatype: {dtype}, Format: (Linear) Row major linear format }}], "  # noqa: E501
                weight = weight if rtx else ""
                lines.append(f"Name: {node.output[0]}, LayerType: gemm, Inputs: {tensor}, {weight}Outputs: {tensor}")
    return "\n".join(lines)
