"""The torch backend on a GPU: its module on fake CUDA tensors, its buffers and graphs on a stand-in for the GPU."""

from __future__ import annotations

import contextlib
import logging
import time
import warnings

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cast_sdk.errors import CudaError, EngineError
from cast_sdk.export.lowering.lower import Shipped, lower
from cast_sdk.export.lowering.options import graph_options
from cast_sdk.models import create_model
from cast_sdk.models.saving import save_native
from cast_sdk.runtime import Runtime
from cast_sdk.runtime.backends import torch as torch_backend
from cast_sdk.runtime.backends import torch_graphs
from cast_sdk.runtime.backends.torch_graphs import StaticRuns

SMALL = {"embed_dim": 48, "depths": (1, 1, 1, 1), "clusters": (16, 8, 4, 2), "image_size": 96, "num_classes": 5}
NAMES = (
    "cast_small",
    "cast_deit_small",
    "cast_seg_small",
    "cast_seg_deit_small",
    "segmenter_cast_small",
    "spml_cast_small",
    "vit_conv_small",
    "tome_small",
)


def small(name):
    torch.manual_seed(0)
    options = {key: value for key, value in SMALL.items() if key != "clusters" or "cast" in name}
    if "cast" not in name:
        options["depths"] = (2,)
    return create_model(name, **options).eval()


class Elsewhere(TorchDispatchMode):
    """Operators whose results do not lie on the GPU: constants to be copied there, and values that are read."""

    def __init__(self):
        super().__init__()
        self.found, self.count = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, (bool, int, float)) or (
                isinstance(value, torch.Tensor) and value.device.type != "cuda"
            ):
                self.found.append(f"{function} -> {value}")
        self.count += 1
        return result


@pytest.mark.parametrize(
    "name, batch, precision", [("cast_small", 1, "fp16"), *((name, None, "bf16") for name in NAMES)]
)
def test_the_module_stays_on_the_gpu(name, batch, precision):
    """Nothing is read back, nothing comes from the host: else a CUDA graph cannot be captured."""
    spec, options = graph_options(small(name).spec, batch=batch, precision=precision)
    module = Shipped(lower(small(name), options, spec))
    images = batch or 3
    with FakeTensorMode(), torch.inference_mode():
        weights = {
            key: torch.empty(value.shape, dtype=value.dtype, device="cuda") for key, value in module.named_buffers()
        }
        inputs = {
            "image": torch.empty(images, 96, 96, 3, dtype=torch.uint8, device="cuda"),
            "superpixels": torch.empty(images, 96, 96, dtype=torch.int32, device="cuda"),
        }
        with Elsewhere() as elsewhere:
            outputs = torch.func.functional_call(module, weights, tuple(inputs[key] for key in module.input_names))
    assert not elsewhere.found and elsewhere.count > 50
    shapes = {key: tuple(value.shape) for key, value in zip(module.output_names, outputs, strict=True)}
    assert shapes["embedding"] == (images, 48)
    if "cast" in name:
        assert shapes["level4"] == (images, options.num_superpixels)


class Event:
    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        assert self.gpu.queueing
        self.time = time.perf_counter()

    def elapsed_time(self, other):
        return (other.time - self.time) * 1e3


class StandInGpu:
    """Host memory, and "graphs" that run what was captured again."""

    device = "cpu"
    torch = torch

    def __init__(self, capture="works"):
        self.behaviour, self.queueing = capture, False
        self.buffers, self.captured, self.replayed, self.released = 0, 0, 0, False

    def pinned(self, shape, dtype):
        self.buffers += 1
        return torch.empty(shape, dtype=dtype)

    @contextlib.contextmanager
    def on_stream(self):
        self.queueing = True
        yield
        self.queueing = False

    def event(self):
        return Event(self)

    def wait(self):
        assert not self.queueing

    def capture(self, work):
        if self.behaviour == "refused":
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore words")
        work()
        self.captured += 1

        def replay():
            self.replayed += 1
            if self.behaviour != "empty":
                work()

        return replay

    def release(self):
        self.released = True


class Doubling(torch.nn.Module):
    calls = 0

    def forward(self, image, superpixels):
        self.calls += 1
        return image.float().sum((1, 2, 3)) * 2 + 1, superpixels[:, 0] + 1


PORTS = {"image": ((4, 4, 3), "uint8"), "superpixels": ((4, 4), "int32")}


def feed(batch, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (batch, 4, 4, 3), np.uint8),
        "superpixels": rng.integers(0, 9, (batch, 4, 4), np.int32),
    }


def check(runs, given):
    found = runs.run(given)
    np.testing.assert_array_equal(found["sum"], given["image"].sum((1, 2, 3), dtype=np.float32) * 2 + 1)
    np.testing.assert_array_equal(found["row"], given["superpixels"][:, 0] + 1)
    return found


def make(gpu, **options):
    return StaticRuns(Doubling(), PORTS, ("sum", "row"), gpu, **options)


def test_buffers_are_made_once_and_batch_sizes_kept_apart():
    gpu = StandInGpu()
    runs = make(gpu)
    first = check(runs, feed(2))
    kept = {name: value.copy() for name, value in first.items()}
    made = gpu.buffers
    assert gpu.captured == 1 and made == 4
    for seed in range(1, 6):
        check(runs, feed(2, seed))
    assert (gpu.buffers, gpu.captured, gpu.replayed) == (made, 1, 7)  # one to try the graph, one for each run
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])  # the caller's own: later runs leave it alone
    check(runs, feed(3))
    check(runs, feed(2, 9))
    check(runs, feed(3, 9))
    assert runs.graphs == [2, 3] and gpu.captured == 2 and gpu.buffers == 2 * made
    assert set(runs.timing) == {"upload", "compute", "download", "gpu", "wall"}
    runs.close()
    assert gpu.released and runs.graphs == []
    with pytest.raises(
        CudaError, match=r"failed on the GPU, with 2 images.\n  Found: RuntimeError: the network is closed"
    ):
        runs.run(feed(2))


def test_only_so_many_batch_sizes_keep_a_graph(caplog):
    gpu = StandInGpu()
    runs = make(gpu)
    with caplog.at_level(logging.INFO, "cast_sdk"):
        for batch in (*range(1, 9), 8, 7, 1):
            check(runs, feed(batch, batch))
    assert runs.graphs == [1, 2, 3, 4] and gpu.captured == torch_graphs.MAX_SIZES
    (said,) = [record.message for record in caplog.records]
    assert said.startswith("batches of 5 run without") and said.endswith("those of 1, 2, 3, 4 have them")


@pytest.mark.parametrize(
    "behaviour, reason",
    [("refused", "RuntimeError: CUDA error: operation not permitted"), ("empty", "other values in sum, row")],
)
def test_a_capture_that_fails_is_said_and_the_plain_run_goes_on(behaviour, reason):
    runs = make(StandInGpu(behaviour))
    with pytest.warns(RuntimeWarning, match=f"batches of 2 run without a CUDA graph, which is slower: {reason}"):
        check(runs, feed(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(runs, feed(2, 1))
    assert runs.graphs == []
    with pytest.raises(
        EngineError, match=rf"(?s)batch of 2 cannot be captured in a CUDA graph.*Found: .*{reason[-20:]}"
    ):
        make(StandInGpu(behaviour), cuda_graph=True).run(feed(2))


def test_never_captured_when_it_is_not_wanted():
    gpu = StandInGpu()
    runs = make(gpu, cuda_graph=False)
    check(runs, feed(1))
    check(runs, feed(1, 1))
    assert gpu.captured == 0 and runs.graphs == []


def test_a_run_that_the_gpu_refuses():
    runs = make(StandInGpu())
    runs.run(feed(2))
    runs._module.forward = lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory.\nTried ..."))
    with pytest.raises(
        CudaError, match=r"with 3 images.\n  Found: OutOfMemoryError: CUDA out of memory.\n  Remedy: free"
    ):
        runs.run(feed(3))
    assert runs.graphs == [2]


@pytest.fixture
def gpu(monkeypatch):
    """A stand-in in the place of the GPU, for `Runtime(..., device="cuda")`."""
    stand_in = StandInGpu()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch_backend, "TorchGpu", lambda module: stand_in)
    moved = torch.nn.Module.to
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device=None, **rest: moved(self, **rest))
    return stand_in


@pytest.mark.parametrize("name", ["cast_deit_small", "segmenter_cast_small", "vit_conv_small"])
def test_runtime_on_the_stand_in(gpu, name, tmp_path, photo):
    save_native(small(name), tmp_path / "m.safetensors")
    expected = Runtime(tmp_path / "m.safetensors", device="cpu", eager=True).segment_batch([photo, photo[::-1]])
    with Runtime(tmp_path / "m.safetensors", device="cuda") as runtime:
        assert runtime.device == "cuda" and runtime.info.target == "any" and runtime.backend.graphs == [1]
        found = [runtime.segment(photo), *runtime.segment_batch([photo, photo[::-1]])]
        assert runtime.backend.graphs == [1, 2] and runtime.backend.timing["wall"] > 0
    for one, other in zip(found, [expected[0], *expected], strict=True):
        np.testing.assert_allclose(one.embedding, other.embedding, rtol=1e-3, atol=1e-4)
        for level in range(1, len(one.spec.clusters)):
            assert np.mean(one.labels(level) == other.labels(level)) > 0.99
