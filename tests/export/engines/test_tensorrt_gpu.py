"""Engines on a real GPU. Skipped without one; `benchmarks/gpu_check.py` measures more."""

from __future__ import annotations

import numpy as np
import pytest

import cast_sdk
from cast_sdk import bundled
from cast_sdk.errors import InputError
from cast_sdk.export.engines.tensorrt import build_engine
from cast_sdk.export.verification.photos import read_inputs
from cast_sdk.runtime.backends.onnxruntime import OnnxRuntimeBackend
from cast_sdk.runtime.backends.tensorrt import TensorRTBackend
from cast_sdk.runtime.engine.api import installed_flavors, load_tensorrt
from cast_sdk.runtime.engine.cuda import find_gpu
from cast_sdk.runtime.engine.record import read_sidecar

pytestmark = pytest.mark.gpu

VARIANTS = {"cast_tiny": {"num_classes": 64}, "cast_seg_small": {}, "segmenter_cast_small": {}}


@pytest.fixture(scope="module")
def flavor():
    """A flavour that is installed and knows this card."""
    gpu = find_gpu()
    for name in installed_flavors():
        if name == "tensorrt" or (gpu and gpu.target in load_tensorrt("rtx").compute_capabilities()):
            return name
    pytest.skip(f"no installed TensorRT builds for {gpu}: pip install tensorrt")


@pytest.fixture(scope="module", params=VARIANTS)
def graph(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / f"{request.param}.onnx"
    cast_sdk.export_onnx(cast_sdk.create_model(request.param, **VARIANTS[request.param]), path, verify=False)
    return path


@pytest.fixture(scope="module")
def engine(graph, flavor):
    """Built, loaded in a fresh process and compared with its graph: a shortfall fails here."""
    record = build_engine(graph, graph.with_suffix(".engine"), flavor=flavor, progress=False)
    assert record.parity["ran"] and record.parity["passed"] and record.gpu == find_gpu().name
    return graph.with_suffix(".engine")


def inputs(backend, count=4):
    given = read_inputs(backend.spec, (backend.info.height, backend.info.width), bundled.photos()[:count])
    return [(given.image[n : n + 1], given.superpixels[n : n + 1]) for n in range(len(given))]


def test_the_engine_gives_what_its_graph_gives(engine, graph):
    with_engine, with_graph = TensorRTBackend(engine), OnnxRuntimeBackend(graph, device="cpu")
    for each in inputs(with_engine):
        found, expected = with_engine.run(*each), with_graph.run(*each)
        scale = np.abs(expected["embedding"]).max()
        assert np.abs(found["embedding"] - expected["embedding"]).max() < 1e-3 * scale
        assert np.mean(found["level1"] == expected["level1"]) > 0.95
    assert 0 < with_engine.timing["compute"] <= with_engine.timing["gpu"] <= with_engine.timing["wall"]
    with_engine.close()


def test_a_cuda_graph_changes_nothing(engine):
    plain, graph = TensorRTBackend(engine, cuda_graph=False), TensorRTBackend(engine)
    assert graph.uses_graph and not plain.uses_graph
    for each in inputs(plain):
        for name, value in plain.run(*each).items():
            np.testing.assert_allclose(graph.run(*each)[name], value, rtol=1e-3, atol=1e-3)
    plain.close()
    graph.close()


def test_memory_is_given_back_and_not_gained(engine):
    first = TensorRTBackend(engine)
    each = inputs(first, 1)[0]
    free = first._cuda.memory()[0]
    for _ in range(500):
        first.run(*each)
    assert abs(first._cuda.memory()[0] - free) < 4 << 20
    first.close()
    for _ in range(3):
        TensorRTBackend(engine).close()
    assert first._cuda.memory()[0] >= free - (64 << 20)


def test_half_precision_on_the_card(tmp_path, flavor):
    model = cast_sdk.create_model("cast_tiny", num_classes=64)
    cast_sdk.export_onnx(model, tmp_path / "half.onnx", precision="fp16", verify=False)
    record = build_engine(tmp_path / "half.onnx", tmp_path / "half.engine", flavor=flavor, progress=False)
    assert record.parity["passed"] and record.readback["source"] == "layers"


def test_onnx_through_the_cache(graph, flavor, tmp_path, monkeypatch):
    monkeypatch.setenv("CAST_SDK_CACHE", str(tmp_path))
    with cast_sdk.Runtime(graph, device="cuda", backend="tensorrt", flavor=flavor) as runtime:
        runtime.segment(bundled.photos()[0])
    (engine,) = (tmp_path / "engines").glob("*.engine")
    stamp = engine.stat().st_mtime_ns
    cast_sdk.Runtime(graph, device="cuda", backend="tensorrt", flavor=flavor).close()
    assert engine.stat().st_mtime_ns == stamp
    if flavor == "rtx":
        assert list((tmp_path / "kernels").iterdir())


def test_an_engine_for_another_card_is_refused_by_name(engine):
    record = read_sidecar(engine)
    if record.flavor != "rtx":
        pytest.skip("only TensorRT-RTX builds for a card that is not here")
    other = next(target for target in load_tensorrt("rtx").compute_capabilities() if target != find_gpu().target)
    build_engine(engine.with_suffix(".onnx"), engine.with_name("other.engine"), targets=other, progress=False)
    with pytest.raises((InputError, cast_sdk.CastError), match=f"for {other}"):
        TensorRTBackend(engine.with_name("other.engine"))
