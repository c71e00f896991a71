"""CUDA through libcudart: the calls as C sees them, on a small library with CUDA's names and host memory.

Its functions do not call each other by those names: where torch has loaded the real library, its would be taken.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

from cast_sdk.errors import CudaError, MissingDependencyError
from cast_sdk.runtime.engine import cuda as cuda_memory
from cast_sdk.runtime.engine.cuda import Buffer, Cuda, CudartLibrary, Gpu, find_gpu, open_cuda

SOURCE = r"""
#include <stdlib.h>
#include <string.h>
static int device = -1, live = 0, captured = 0, last = 0;
int cudaGetDeviceCount(int *n) { *n = 2; return 0; }
int cudaSetDevice(int d) { device = d; return d < 2 ? 0 : (last = 101); }
int cudaDeviceGetAttribute(int *v, int kind, int d) { *v = kind == 75 ? 8 : 10 * d + 7; return kind > 76; }
int cudaGetDeviceProperties_v2(char *p, int d) { strcpy(p, d ? "Orin (nvgpu)" : "Other"); return 0; }
int cudaMemGetInfo(size_t *f, size_t *t) { *f = (1ull << 33) + live; *t = 1ull << 34; return 0; }
int cudaDriverGetVersion(int *v) { *v = 12060; return 0; }
int cudaRuntimeGetVersion(int *v) { *v = 12060; return 0; }
int cudaGetLastError(void) { int e = last; last = 0; return e; }
static int take(void **p, size_t n) { if (n > 1u << 30) return 2; live++; *p = malloc(n); return 0; }
static int give(void *p) { live--; free(p); return 0; }
int cudaMalloc(void **p, size_t n) { return take(p, n); }
int cudaFree(void *p) { return give(p); }
int cudaHostAlloc(void **p, size_t n, unsigned flags) { if (n == 12345) return 2; return take(p, n) + flags; }
int cudaFreeHost(void *p) { return give(p); }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) {
    if ((size_t)stream != 0xfeed00000001 || (kind != 1 && kind != 2)) return 1;
    memcpy(to, from, n); return 0; }
int cudaStreamCreateWithFlags(void **s, unsigned flags) { *s = (void *)0xfeed00000001; return flags != 1; }
static int known(void *s) { return (size_t)s != 0xfeed00000001; }
int cudaStreamSynchronize(void *s) { return known(s); }
int cudaStreamDestroy(void *s) { return (size_t)s != 0xfeed00000001; }
int cudaEventCreateWithFlags(void **e, unsigned flags) { *e = malloc(8); return 0; }
int cudaEventRecord(void *e, void *s) { return known(s); }
int cudaEventElapsedTime(float *ms, void *a, void *b) { *ms = a == b ? 0 : 1.5f; return 0; }
int cudaEventDestroy(void *e) { free(e); return 0; }
int cudaStreamBeginCapture(void *s, int mode) { captured = 1; return mode != 1; }
int cudaStreamEndCapture(void *s, void **graph) { *graph = (void *)0xabc000000002; return captured ? 0 : (last = 901); }
int cudaGraphInstantiateWithFlags(void **x, void *g, unsigned long long f) {
    *x = (void *)((size_t)g + 1); return (size_t)g != 0xabc000000002 || f; }
int cudaGraphLaunch(void *x, void *s) { return (size_t)x != 0xabc000000003 || known(s); }
int cudaGraphExecDestroy(void *x) { return (size_t)x != 0xabc000000003; }
int cudaGraphDestroy(void *g) { return (size_t)g != 0xabc000000002; }
const char *cudaGetErrorName(int e) { return e == 2 ? "cudaErrorMemoryAllocation" : "cudaErrorUnknown"; }
const char *cudaGetErrorString(int e) { return e == 2 ? "out of memory" : "unknown error"; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for the small stand-in library")
    folder = tmp_path_factory.mktemp("cudart")
    (folder / "cudart.c").write_text(SOURCE)
    path = folder / "libcudart_standin.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", path, folder / "cudart.c"], check=True)
    return str(path)


@pytest.fixture
def cuda(library):
    return Cuda(CudartLibrary(ctypes.CDLL(library)))


def test_devices_versions_and_memory(cuda):
    assert cuda.device_count() == 2 and cuda.versions() == (12060, 12060)
    assert cuda.gpu(1) == Gpu(1, "Orin (nvgpu)", (8, 17)) and Gpu(0, "x", (8, 7)).target == "sm87"
    assert cuda.memory()[1] == 1 << 34  # more than 32 bits


def test_buffers_copies_and_their_end(cuda):
    live = cuda.memory()[0]
    stream = cuda.stream()
    buffer = Buffer(cuda, (2, 3), "float32")
    assert buffer.host.shape == (2, 3) and buffer.host.dtype == np.float32 and buffer.nbytes == 24
    buffer.host[...] = np.arange(6).reshape(2, 3)
    cuda.copy_to_device(buffer, stream)
    buffer.host[...] = 0
    cuda.copy_to_host(buffer, stream)
    cuda.synchronize(stream)
    np.testing.assert_array_equal(buffer.host, np.arange(6).reshape(2, 3))
    buffer.free()
    buffer.free()
    assert cuda.memory()[0] == live
    with pytest.raises(CudaError, match="cudaHostAlloc"):
        Buffer(cuda, (12345,), "uint8")  # pinned memory fails: the device memory is given back
    assert cuda.memory()[0] == live


def test_events_and_graphs(cuda):
    stream, first, second = cuda.stream(), cuda.event(), cuda.event()
    cuda.record(first, stream)
    assert cuda.elapsed_ms(first, second) == 1.5
    cuda.begin_capture(stream)
    graph = cuda.end_capture(stream)
    executable = cuda.instantiate(graph)
    cuda.launch(executable, stream)
    for name, handle in (
        ("cudaGraphExecDestroy", executable),
        ("cudaGraphDestroy", graph),
        ("cudaEventDestroy", first),
    ):
        cuda.call(name, handle)
    cuda.forget_error()


def test_errors_carry_cudas_name_and_words(cuda):
    words = r"cudaMalloc failed.\n  Found: cudaErrorMemoryAllocation \(2\): out of memory"
    with pytest.raises(CudaError, match=words):
        Buffer(cuda, (1 << 31,), "uint8")
    with pytest.raises(AttributeError):
        _ = cuda.api.cudaNoSuchCall


def test_the_first_library_that_finds_a_gpu_is_taken(library, monkeypatch):
    """One newer than the driver finds nothing where an older one does."""

    class TooNew:
        def cudaGetDeviceCount(self):
            return 35, None

        def cudaGetErrorName(self, code):
            return 0, b"cudaErrorInsufficientDriver"

        def cudaGetErrorString(self, code):
            return 0, b"CUDA driver version is insufficient"

    older = CudartLibrary(ctypes.CDLL(library))
    monkeypatch.setattr(cuda_memory, "cudart_libraries", lambda: iter([TooNew(), older]))
    assert open_cuda().device_count() == 2
    assert find_gpu().name == "Other"
    monkeypatch.setattr(cuda_memory, "cudart_libraries", lambda: iter([TooNew()]))
    with pytest.raises(MissingDependencyError, match=r"NVIDIA GPU.\n  Found: cudaErrorInsufficientDriver \(35\)"):
        open_cuda()
    assert find_gpu() is None


def test_nothing_to_reach_cuda_with(library, monkeypatch):
    monkeypatch.setattr(cuda_memory, "cudart_candidates", lambda: iter(["libcudart.so.99", library]))
    assert open_cuda().device_count() == 2  # what cannot be loaded is passed over
    monkeypatch.setattr(cuda_memory, "cudart_candidates", lambda: iter(["libcudart.so.99"]))
    with pytest.raises(MissingDependencyError, match=r"libcudart.*\n  Found: looked for libcudart.so.99") as caught:
        open_cuda()
    assert "pip install nvidia-cuda-runtime-cu12" in caught.value.remedy
    monkeypatch.setattr(cuda_memory, "is_jetson", lambda: True)
    with pytest.raises(MissingDependencyError, match="part of JetPack"):
        open_cuda()


def test_candidates_are_names_first_then_folders():
    names = list(cuda_memory.cudart_candidates())
    assert names[:3] == ["libcudart.so.13", "libcudart.so.12", "libcudart.so"]
