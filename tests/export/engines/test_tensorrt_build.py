"""Engines by the real TensorRT-RTX, which builds without a GPU; and every refusal on the way."""

from __future__ import annotations

import dataclasses
import json
import time

import onnx
import pytest
from onnx import TensorProto, helper

import cast_sdk
from cast_sdk.artifact import INFO_KEY, SPEC_KEY, ExportInfo
from cast_sdk.errors import ArtifactError, EngineError, ExportError, InputError, MissingDependencyError
from cast_sdk.export.engines.tensorrt import build_engine
from cast_sdk.export.precision import quantize
from cast_sdk.export.precision.calibrate import Range
from cast_sdk.runtime.backends.tensorrt import load_plan
from cast_sdk.runtime.engine.api import Log, load_tensorrt
from cast_sdk.runtime.engine.cuda import find_gpu
from cast_sdk.runtime.engine.onnx_metadata import read_description, read_metadata
from cast_sdk.runtime.engine.record import read_sidecar, sidecar_path
from cast_sdk.system.files import sha256

rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx")
CARDS = ("sm86", "sm89")
PRECISIONS = ("fp32", "fp16", "int8")


def small_model():
    options = {"embed_dim": 96, "depths": (1, 1, 1, 1), "num_heads": 3, "clusters": (16, 8, 4, 2)}
    return cast_sdk.create_model("cast_tiny", num_classes=10, **options)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """A small classification model as .onnx in all precisions."""
    folder, model = tmp_path_factory.mktemp("graphs"), small_model()
    for precision in ("fp32", "fp16"):
        cast_sdk.export_onnx(model, folder / f"{precision}.onnx", precision=precision, verify=False)
    quantise(folder / "fp32.onnx", folder / "int8.onnx")
    return folder


def quantise(source, target):
    """The INT8 graph that TensorRT takes. The ranges are made up: here the engine is built and not run."""
    model = onnx.load(source)
    chosen = quantize.layers(model)
    ranges = {name: Range(-4.0, 4.0) for name in quantize.activations(model, chosen)}
    quantised = quantize.quantize(model, ranges, chosen, "tensorrt")
    spec, info = read_description(source)
    info = dataclasses.replace(info, precision="int8", target="tensorrt")
    helper.set_model_props(quantised, {SPEC_KEY: spec.to_json(), INFO_KEY: info.to_json()})
    onnx.save(quantised, target)


@pytest.fixture(scope="module")
def engines(graphs):
    return {
        precision: build_engine(
            graphs / f"{precision}.onnx", graphs / f"{precision}.engine", targets=CARDS, progress=False
        )
        for precision in PRECISIONS
    }


@pytest.fixture
def claims(graphs, tmp_path):
    """A copy of a graph with other claims in its record."""

    def make(graph, **changes):
        model = onnx.load(graphs / f"{graph}.onnx")
        spec, info = read_description(graphs / f"{graph}.onnx")
        info = dataclasses.replace(info, **changes)
        helper.set_model_props(model, {SPEC_KEY: spec.to_json(), INFO_KEY: info.to_json()})
        onnx.save(model, tmp_path / "claims.onnx")
        return tmp_path / "claims.onnx"

    return make


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_real_engine_with_a_complete_record(graphs, engines, precision):
    record, engine = engines[precision], graphs / f"{precision}.engine"
    assert read_sidecar(engine) == record
    assert record.flavor == "rtx" and record.version == rtx.__version__ and record.targets == CARDS
    assert record.plan_sha256 == sha256(engine) and record.plan_bytes == engine.stat().st_size
    assert record.onnx_sha256 == sha256(graphs / f"{precision}.onnx") and record.onnx_name == f"{precision}.onnx"
    assert (record.spec, record.info) == read_description(graphs / f"{precision}.onnx")
    assert record.readback["source"] == "layers" and record.build["seconds"] > 0
    weights = record.readback["weights"]
    if precision == "fp32":
        assert set(weights) == {"fp32"}
    else:  # tables of the stem, norms and logits stay in float32
        assert weights[precision] > 2 * weights["fp32"]
    if find_gpu() is None:
        assert record.gpu is None and record.parity == {"ran": False, "reason": "this machine has no NVIDIA GPU"}


def test_half_precision_halves_what_the_weights_take(engines):
    # Kernels take 24 MB whatever the weights; full-size models show the ratio, small ones the difference.
    saved = engines["fp32"].plan_bytes - engines["fp16"].plan_bytes
    assert saved >= 0.9 * 2 * engines["fp16"].readback["weights"]["fp16"]


def test_no_draft_is_left_beside_the_engines(graphs, engines):
    names = {f"{p}.{kind}" for p in PRECISIONS for kind in ("onnx", "engine", "engine.json")}
    assert {path.name for path in graphs.iterdir()} == names


def test_without_a_gpu_the_current_target_is_every_card_from_ampere_on(graphs, tmp_path):
    if find_gpu() is not None:
        pytest.skip("this machine has a GPU, so 'current' means that one")
    record = build_engine(graphs / "fp16.onnx", tmp_path / "any.plan", progress=False)
    assert {"sm80", "sm86", "sm89", "sm120"} <= set(record.targets) and "sm75" not in record.targets
    assert sidecar_path(tmp_path / "any.plan").is_file()


def test_a_graph_that_is_not_what_it_claims_gives_no_engine(claims, tmp_path):
    path = claims("fp32", precision="fp16")
    with pytest.raises(ExportError, match=r"asked for, fp16.\n  Found: weights of fp32 100.0%"):
        build_engine(path, tmp_path / "x.engine", flavor="rtx", progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["claims.onnx"]


def test_every_node_that_cannot_be_read_is_named(graphs, tmp_path):
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["x"], to=TensorProto.FLOAT, name="cast"),
        node("Unique", ["x"], ["u"], name="first_trouble"),
        node("Hedgehog", ["x"], ["embedding"], name="second_trouble"),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("u", "embedding")]
    graph = helper.make_graph(nodes, "bad", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, read_metadata(graphs / "fp32.onnx"))
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(ExportError, match=r"cannot read bad.onnx") as caught:
        build_engine(tmp_path / "bad.onnx", tmp_path / "bad.engine", flavor="rtx", progress=False)
    assert "node 1 'first_trouble' (Unique): UNSUPPORTED_NODE" in caught.value.found
    assert "node 2 'second_trouble' (Hedgehog): INVALID_NODE" in caught.value.found


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"targets": ("sm87",)}, InputError, "TensorRT-RTX .* cannot build for sm87.\n  Found: it builds for sm75, "),
        ({"targets": ("9.0",)}, InputError, "cannot build for sm90.*\n.*\n.*data-centre and Jetson GPUs"),
        ({"targets": ("current", "sm86")}, InputError, "'current' cannot be combined with others: current,sm86"),
        ({"targets": ()}, InputError, "No target is named"),
        ({"flavor": "trt"}, InputError, "auto, tensorrt, rtx"),
        ({"precision": "bf16"}, InputError, "fp32, fp16, int8"),
        ({"precision": "fp16"}, ExportError, "fp32.onnx has the precision fp32, not fp16.\n.*written in the graph"),
        ({"workspace_mb": 0}, InputError, "workspace of 0 MB"),
        ({"version_compatible": True}, InputError, "TensorRT-RTX has no --version-compatible"),
        ({"hardware_compatible": True}, InputError, "name the cards"),
        ({"timing_cache": "x.cache"}, InputError, "no --timing-cache"),
        ({"batch": 4}, InputError, "has a fixed batch of 1, not 4"),
        ({"flavor": "tensorrt", "targets": ("sm86",)}, InputError, "only for the GPU in this machine"),
    ],
)
def test_requests_that_cannot_be_served(graphs, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        build_engine(graphs / "fp32.onnx", tmp_path / "x.engine", **{"flavor": "rtx", "progress": False, **options})
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_used(graphs, tmp_path):
    with pytest.raises(InputError, match=r"x.trt does not end in .engine or .plan"):
        build_engine(graphs / "fp32.onnx", tmp_path / "x.trt")
    with pytest.raises(ExportError, match="The output folder"):
        build_engine(graphs / "fp32.onnx", tmp_path / "none" / "x.engine")
    with pytest.raises(ArtifactError, match="There is no file"):
        build_engine(tmp_path / "none.onnx", tmp_path / "x.engine")
    data = (graphs / "fp32.onnx").read_bytes()
    for damaged, message in (
        (data[: len(data) // 2], "ends after the file"),
        (b"hello, world", "not a complete .onnx file"),
    ):
        (tmp_path / "damaged.onnx").write_bytes(damaged)
        with pytest.raises(ArtifactError, match=message):
            build_engine(tmp_path / "damaged.onnx", tmp_path / "x.engine")
    foreign = onnx.load(graphs / "fp32.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ArtifactError, match="does not carry cast_sdk's model description"):
        build_engine(tmp_path / "foreign.onnx", tmp_path / "x.engine")


def test_a_graph_quantised_for_onnx_runtime_is_refused(claims, tmp_path):
    path = claims("fp32", target="onnxruntime", precision="int8")
    with pytest.raises(ExportError, match="quantised for ONNX Runtime, and TensorRT cannot take it"):
        build_engine(path, tmp_path / "x.engine")


def test_a_graph_for_processors_is_refused(claims, tmp_path):
    path = claims("fp32", target="cpu")
    with pytest.raises(ExportError, match="made for processors, and TensorRT cannot take it") as caught:
        build_engine(path, tmp_path / "x.engine")
    assert "without --target cpu" in caught.value.remedy


def test_a_real_engine_on_a_machine_without_a_driver(graphs, engines):
    if find_gpu() is not None:
        pytest.skip("this machine has a GPU; what is tested is its absence")
    with pytest.raises(MissingDependencyError, match=r"no usable NVIDIA GPU|libcudart"):
        cast_sdk.Runtime(graphs / "fp32.engine")
    with pytest.raises(MissingDependencyError, match=r"no usable NVIDIA GPU|libcudart"):
        cast_sdk.Runtime(graphs / "fp32.onnx", backend="tensorrt")
    with pytest.raises(InputError, match="cannot run on the CPU"):
        cast_sdk.Runtime(graphs / "fp32.engine", device="cpu")
    trt = load_tensorrt("rtx")
    with pytest.raises(EngineError, match="cudaError") as caught:  # TensorRT's own words
        load_plan(trt, Log(trt), graphs / "fp32.engine", engines["fp32"])
    assert "cast-export --onnx fp32.onnx --trt --flavor rtx" in caught.value.remedy


def test_a_truncated_real_plan_is_named_before_the_driver_is_asked(graphs, engines, tmp_path):
    engine = tmp_path / "cut.engine"
    engine.write_bytes((graphs / "fp16.engine").read_bytes()[:-1000])
    sidecar_path(engine).write_text(sidecar_path(graphs / "fp16.engine").read_text())
    with pytest.raises(ArtifactError, match="truncated"):
        cast_sdk.Runtime(engine)


def test_a_dynamic_batch_becomes_static(tmp_path):
    cast_sdk.export_onnx(small_model(), tmp_path / "any.onnx", batch=None, verify=False)
    record = build_engine(
        tmp_path / "any.onnx", tmp_path / "x.engine", flavor="rtx", targets="sm86", batch=2, progress=False
    )
    assert record.info.batch == 2 and record.targets == ("sm86",)


def test_metadata_is_what_onnx_reads(graphs):
    path = graphs / "fp16.onnx"
    assert read_metadata(path) == {item.key: item.value for item in onnx.load(path).metadata_props}


FULL = {
    "cast_small": {"num_classes": 1000},
    "cast_deit_small": {"num_classes": 1000},
    "cast_seg_small": {},
    "segmenter_cast_small": {},
    "spml_cast_small": {},
}


@pytest.mark.full
@pytest.mark.parametrize("name", FULL)
def test_full_size_models_of_every_kind(name, tmp_path, capsys):
    """Fused and dense ones too; seconds are printed (docs/tensorrt.md), and the bar is the issue's minute."""
    model = cast_sdk.create_model(name, **FULL[name])
    sizes, small = {}, {}
    for precision in PRECISIONS:
        graph, engine = tmp_path / f"{precision}.onnx", tmp_path / f"{precision}.engine"
        if precision == "int8":
            quantise(tmp_path / "fp32.onnx", graph)
        else:
            cast_sdk.export_onnx(model, graph, precision=precision, verify=False)
        start = time.perf_counter()
        record = build_engine(graph, engine, targets=CARDS, progress=False)
        with capsys.disabled():
            took = time.perf_counter() - start
            print(f"\n{name} {precision}: {took:.1f} s, {record.plan_bytes / 1e6:.1f} MB, {record.readback['weights']}")
        assert json.loads(sidecar_path(engine).read_text())["targets"] == list(CARDS)
        sizes[precision] = record.plan_bytes
        counts = record.readback["weights"]
        small[precision] = counts.get(precision, 0)
    assert sizes["fp32"] - sizes["fp16"] >= 0.9 * 2 * small["fp16"]
    assert sizes["fp32"] - sizes["int8"] >= 0.9 * 3 * small["int8"]
    assert sizes["fp16"] <= 0.65 * sizes["fp32"]


def test_the_info_of_the_record_is_an_export_info(engines):
    assert isinstance(engines["fp16"].info, ExportInfo) and engines["fp16"].precision == "fp16"
