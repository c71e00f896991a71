"""The TensorRT backend's own logic, on stand-ins that have the names of real versions and no others."""

from __future__ import annotations

import sys
import threading
import types
import warnings

import numpy as np
import pytest
from fake_tensorrt import Behaviour, FakeCudart, install

from cast_sdk.errors import ArtifactError, EngineError, InputError, MissingDependencyError
from cast_sdk.runtime import Runtime
from cast_sdk.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cast_sdk.runtime.backends.tensorrt import TensorRTBackend
from cast_sdk.runtime.engine.build import build
from cast_sdk.runtime.engine.request import BuildRequest

VERSIONS = ("tensorrt 10.3", "tensorrt 10.13", "tensorrt 10.16", "tensorrt 11.4", "rtx 1.4", "rtx 1.7")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAST_SDK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def engine(tiny_onnx, tmp_path, monkeypatch):
    """An engine of a stand-in version, and the stand-in itself for the test to break."""

    def make(version="tensorrt 10.3", **options):
        cudart, behaviour = install(monkeypatch, version)
        path = tmp_path / "cast.engine"
        build(BuildRequest(tiny_onnx, path, progress=False, **options))
        return path, cudart, behaviour

    return make


def batch(seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (1, 96, 96, 3), np.uint8)
    grid = np.arange(64, dtype=np.int32).reshape(1, 8, 8)
    return image, np.ascontiguousarray(grid.repeat(12, 1).repeat(12, 2))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds_runs_and_frees_everything(engine, tiny_onnx, version):
    path, cudart, _ = engine(version)
    before = cudart.free
    backend = TensorRTBackend(path)
    reference = OnnxRuntimeBackend(tiny_onnx)
    for seed in (1, 2):
        outputs = backend.run(*batch(seed))
        for name, value in reference.run(*batch(seed)).items():
            np.testing.assert_array_equal(outputs[name], value)
    kept = outputs["logits"].copy()
    backend.run(*batch(3))
    np.testing.assert_array_equal(outputs["logits"], kept)  # the caller owns what it was given
    assert backend.uses_graph and backend.device == "cuda" and backend.info.precision == "fp32"
    assert set(backend.timing) == {"upload", "compute", "download", "gpu", "wall"} and backend.timing["gpu"] == 3.0
    backend.close()
    backend.close()
    assert cudart.free == before and not cudart.handles
    with pytest.raises(InputError, match="backend is closed"):
        backend.run(*batch())


def test_a_runtime_segments_with_it(engine, photo):
    path, *_ = engine()
    with Runtime(path) as runtime:
        result = runtime.segment(photo)
    assert result.num_levels == 4 and len(result.top(3)) == 3


def test_a_refused_run_is_an_error_and_not_the_previous_frame(engine):
    path, _, behaviour = engine()
    behaviour.run_fails_at = 4
    backend = TensorRTBackend(path, cuda_graph=False)
    backend.run(*batch(1))
    with pytest.raises(EngineError, match="Cask convolution execution"):
        backend.run(*batch(2))
    backend.run(*batch(3))


@pytest.mark.parametrize(
    "capture, reason",
    [("refused", "stream is capturing"), ("empty", "logged nothing"), ("wrong", "other values in embedding")],
)
def test_a_failed_capture_runs_plainly_with_one_warning_or_is_an_error_when_insisted(
    engine, tiny_onnx, capture, reason
):
    path, cudart, behaviour = engine()
    behaviour.capture = capture
    with pytest.warns(RuntimeWarning, match=f"without a CUDA graph: .*{reason}"):
        backend = TensorRTBackend(path)
    assert not backend.uses_graph and cudart.capturing is None
    outputs = backend.run(*batch(5))
    np.testing.assert_array_equal(outputs["logits"], OnnxRuntimeBackend(tiny_onnx).run(*batch(5))["logits"])
    backend.close()
    assert not cudart.handles
    with pytest.raises(EngineError):
        TensorRTBackend(path, cuda_graph=True)
    assert not cudart.handles


def test_what_tensorrt_logged_is_in_the_error(engine):
    path, cudart, behaviour = engine()
    behaviour.makes_context = False
    with pytest.raises(EngineError, match="OutOfMemory"):
        TensorRTBackend(path)
    behaviour.loads = False
    with pytest.raises(EngineError, match="stdVersionRead == kVERSION") as caught:
        TensorRTBackend(path)
    assert "/stand-in/tensorrt" in caught.value.remedy and "cast-export --onnx tiny.onnx --trt" in caught.value.remedy
    assert not cudart.handles


def test_too_little_gpu_memory_is_said_in_cudas_words_and_leaves_nothing_behind(engine):
    path, cudart, _ = engine()
    cudart.free = free = 100_000
    with pytest.raises(EngineError, match=r"cudaErrorMemoryAllocation.*out of memory"):
        TensorRTBackend(path)
    assert cudart.free == free and not cudart.handles


def test_compiled_kernels_are_kept_and_a_foreign_cache_is_replaced(engine, cache):
    path, *_ = engine("rtx 1.7")
    TensorRTBackend(path).close()
    (kernels,) = (cache / "kernels").iterdir()
    assert kernels.read_bytes() == b"kernels"
    kernels.write_bytes(b"of another driver")
    TensorRTBackend(path).close()
    assert kernels.read_bytes() == b"kernels"


@pytest.mark.parametrize(
    ("call", "result", "message"),
    [("serialize", None, "gives none to keep"), ("set_runtime_cache", False, "refuses the cache")],
)
def test_kernels_that_cannot_be_kept_are_a_warning(engine, cache, monkeypatch, call, result, message):
    path, *_ = engine("rtx 1.7")
    module = sys.modules["tensorrt_rtx"]
    owner = module.IRuntimeCache if call == "serialize" else module.IRuntimeConfig
    monkeypatch.setattr(owner, call, lambda *_: result)
    with pytest.warns(RuntimeWarning, match=message):
        backend = TensorRTBackend(path)
    assert backend.uses_graph and not (cache / "kernels").exists()
    backend.close()


def test_an_engine_is_built_on_the_card_that_will_run_it(tiny_onnx, monkeypatch):
    class TwoCards(FakeCudart):
        def cudaGetDeviceCount(self):
            return 0, 2

        def cudaGetDeviceProperties(self, index):
            return 0, types.SimpleNamespace(name=f"Card {index}".encode())

    cudart = TwoCards()
    install(monkeypatch, "tensorrt 10.3", cudart=cudart)
    builder, current = sys.modules["tensorrt"].Builder, []

    class Watched(builder):
        def __init__(self, logger):
            current.append(cudart.devices_set[-1])
            super().__init__(logger)

    monkeypatch.setattr(sys.modules["tensorrt"], "Builder", Watched)
    backend = TensorRTBackend(tiny_onnx, device_id=1, progress=False)
    assert current == [1] and backend.record.gpu == "Card 1"
    backend.close()
    TensorRTBackend(tiny_onnx, device_id=1, progress=False).close()
    assert current == [1]  # from the cache


def test_a_version_compatible_plan_needs_consent_and_runs_on_the_lean_runtime(engine, monkeypatch, tiny_onnx):
    path, *_ = engine("tensorrt 10.3", version_compatible=True)
    with pytest.raises(InputError, match="carries code that would run"):
        TensorRTBackend(path)
    TensorRTBackend(path, allow_host_code=True).close()
    install(monkeypatch, "lean 11.4")
    outputs = TensorRTBackend(path, allow_host_code=True).run(*batch(1))
    np.testing.assert_array_equal(outputs["logits"], OnnxRuntimeBackend(tiny_onnx).run(*batch(1))["logits"])
    install(monkeypatch, "rtx 1.7")
    with pytest.raises(MissingDependencyError, match="package tensorrt_lean cannot be imported"):
        TensorRTBackend(path, allow_host_code=True)


def test_the_lean_runtime_refuses_an_ordinary_plan(engine, monkeypatch):
    path, *_ = engine("tensorrt 10.3")
    install(monkeypatch, "lean 10.3")
    with pytest.raises(ArtifactError, match="built without --version-compatible"):
        TensorRTBackend(path)


def test_onnx_is_built_once_per_machine_and_again_when_the_cache_is_damaged(tiny_onnx, monkeypatch, cache, capsys):
    install(monkeypatch, "tensorrt 10.13")
    with Runtime(tiny_onnx, device="cuda", backend="tensorrt") as runtime:
        assert runtime.device == "cuda"
    assert "Building with TensorRT 10.13" in capsys.readouterr().err
    built = cache / "engines"
    (first,) = built.glob("*.engine")
    assert {"tiny", "b1", "fp32", "10.13.3.9", "sm86", "stand"} <= set(first.stem.split("-"))
    stamp = first.stat().st_mtime_ns
    Runtime(tiny_onnx, device="cuda", backend="tensorrt").close()
    assert first.stat().st_mtime_ns == stamp and "Building" not in capsys.readouterr().err
    first.write_bytes(first.read_bytes()[:-1])
    Runtime(tiny_onnx, device="cuda", backend="tensorrt").close()
    assert first.stat().st_mtime_ns != stamp
    install(monkeypatch, "tensorrt 10.16", cudart=FakeCudart("Another", (8, 9)))
    Runtime(tiny_onnx, device="cuda", backend="tensorrt", progress=False).close()
    assert len(list(built.glob("*.engine"))) == 2


def test_a_dynamic_batch_is_fixed_when_the_engine_is_built(dense_onnx, tmp_path, monkeypatch):
    install(monkeypatch, "tensorrt 10.3")
    record = build(BuildRequest(dense_onnx, tmp_path / "two.engine", batch=2, progress=False))
    assert record.info.batch == 2
    image, superpixels = (np.concatenate([one, two]) for one, two in zip(batch(1), batch(2), strict=True))
    outputs = TensorRTBackend(tmp_path / "two.engine").run(image, superpixels)
    for name, value in OnnxRuntimeBackend(dense_onnx).run(image, superpixels).items():
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5, err_msg=name)


def test_threads_share_one_backend(engine, tiny_onnx):
    path, cudart, _ = engine()
    backend, reference = TensorRTBackend(path), OnnxRuntimeBackend(tiny_onnx)
    wrong = []

    def work(seed):
        for step in range(5):
            given = batch(seed * 10 + step)
            if not np.array_equal(backend.run(*given)["logits"], reference.run(*given)["logits"]):
                wrong.append((seed, step))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(cudart.devices_set) >= 15  # the device is a setting of each thread


def test_another_card_of_the_same_kind_runs_with_a_warning(engine, monkeypatch):
    path, *_ = engine()
    install(monkeypatch, "tensorrt 10.3", cudart=FakeCudart("Another RTX"))
    with pytest.warns(RuntimeWarning, match="built on Stand-in RTX and runs on Another RTX"):
        TensorRTBackend(path).close()
    install(monkeypatch, "tensorrt 10.3", cudart=FakeCudart("Orin (nvgpu)", (8, 7)))
    with pytest.raises(ArtifactError, match=r"built on Stand-in RTX for sm86.\n  Found: Orin \(nvgpu\) \(sm87\)"):
        TensorRTBackend(path)


def test_a_wrong_gpu_number_and_unknown_options_are_refused(engine):
    path, *_ = engine()
    with pytest.raises(InputError, match=r"no GPU"):
        TensorRTBackend(path, device_id=1)
    with pytest.raises(InputError, match="tensorrt backend has no option precision"):
        Runtime(path, precision="bf16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TensorRTBackend(path, cuda_graph=True).close()
    assert Behaviour.capture == "works"
