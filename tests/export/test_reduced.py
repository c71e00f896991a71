"""Half precision and INT8: what the graph holds, what a report measures, what is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from export_tools import photo_inputs, small_model
from onnx import TensorProto, numpy_helper

from cast_sdk import bundled
from cast_sdk.artifact import from_metadata
from cast_sdk.errors import ExportError
from cast_sdk.export import graph
from cast_sdk.export.lowering.lower import lower
from cast_sdk.export.lowering.options import graph_options
from cast_sdk.export.onnx_export import convert, export_onnx
from cast_sdk.export.precision import calibrate, reduced, sensitivity
from cast_sdk.export.precision.calibrate import Range
from cast_sdk.export.precision.quantize import activation_scale, activations, layers, quantize, weight_scales
from cast_sdk.export.verification import quality
from cast_sdk.export.verification.photos import Inputs
from cast_sdk.export.verification.report import Check, Report
from cast_sdk.export.verification.verify import open_session, run_session


@pytest.fixture(scope="module")
def float_graph():
    model = small_model("cast_small")
    spec, options = graph_options(model.spec, tokens=True)
    lowered = lower(model, options, spec)
    return graph.with_outputs(convert(lowered), lowered.shipped_names), spec, options


@pytest.fixture(scope="module")
def inputs(float_graph):
    return photo_inputs(float_graph[1], 224, 224)


@pytest.fixture(scope="module")
def ranges(float_graph, inputs):
    model = float_graph[0]
    return calibrate.find_ranges(model, activations(model, layers(model)), inputs)


def run(model, inputs):
    return list(run_session(open_session(model.SerializeToString(), 1), inputs, 1))


def test_half_precision_keeps_float32_islands(tmp_path):
    path = tmp_path / "half.onnx"
    export_onnx(small_model("cast_small"), path, precision="fp16", verify=False)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    }
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    kinds = {}
    for node in model.graph.node:
        kinds.setdefault(node.op_type, set()).add(types.get(node.input[0]))
    for name in ("LayerNormalization", "Softmax", "ReduceL2", "ReduceMean"):
        assert kinds[name] == {TensorProto.FLOAT}, name
    assert kinds["Conv"] == {TensorProto.FLOAT16}
    half = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    weights = sum(numpy_helper.to_array(tensor).size for tensor in half)
    assert weights > 0.8 * sum(numpy_helper.to_array(tensor).size for tensor in model.graph.initializer)
    info = from_metadata({entry.key: entry.value for entry in model.metadata_props}, path)[1]
    assert info.precision == "fp16" and info.verification == {}


def test_half_precision_agrees_with_the_model(tmp_path):
    info = export_onnx(small_model("cast_small"), tmp_path / "half.onnx", precision="fp16", thresholds=LOOSE)
    report = Report.from_dict(info.verification)
    values = {(check.name, check.measure): check.value for check in report.checks}
    assert values["logits", "cosine"] > 0.999


STATED = quality.Thresholds(None, None, None, None)
LOOSE = quality.Thresholds(top1=None, cosine=0.9, matched=0.3, iou=0.1)


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_int8_follows_float(float_graph, inputs, ranges, target):
    model = float_graph[0]
    quantised = quantize(model, ranges, layers(model), target)
    graph.check(quantised)
    expected, found = run(model, inputs), run(quantised, inputs)
    for one, other in zip(expected, found, strict=True):
        # What comes before the first sampling: with random weights a changed choice changes everything after it.
        distance = np.linalg.norm(one["tokens1"] - other["tokens1"])
        assert 0 < distance < 0.2 * np.linalg.norm(one["tokens1"])
    assert len(quantised.SerializeToString()) < 0.5 * len(model.SerializeToString())


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_int8_products_do_not_saturate(target):
    """255 x 127 + 255 x 127 does not fit into the 16 bits in which processors without VNNI would add it."""
    weight = numpy_helper.from_array(np.ones((8, 64), np.float32), "weight")
    node = onnx.helper.make_node("Gemm", ["x", "weight"], ["y"], name="linear", transB=1)
    x, y = (onnx.helper.make_tensor_value_info(n, TensorProto.FLOAT, [16, k]) for n, k in (("x", 64), ("y", 8)))
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [x], [y], [weight]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=10,
    )
    quantised = quantize(model, {"x": Range(-0.1, 1.0)}, ["linear"], target)
    (found,) = open_session(quantised.SerializeToString(), 1).run(None, {"x": np.ones((16, 64), np.float32)})
    np.testing.assert_allclose(found, np.full((16, 8), 64.0), rtol=0.01)


def test_each_target_gets_its_own_integers(float_graph, ranges):
    model = float_graph[0]
    names = layers(model)
    for target, kind, biased, relus in (
        ("onnxruntime", np.uint8, True, 0),
        ("tensorrt", np.int8, False, 4),
    ):
        quantised = quantize(model, ranges, names, target)
        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
        made = {output: node for node in quantised.graph.node for output in node.output}
        for node in quantised.graph.node:
            if node.op_type == "QuantizeLinear":
                zero = values[node.input[2]]
                assert zero.dtype == kind and (target == "onnxruntime" or zero == 0)
            if node.name in names:
                assert [made[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
                assert values[made[node.input[1]].input[0]].dtype == np.int8
                assert all((name in made) is biased for name in node.input[2:])
        assert graph.operators(quantised)["Relu"] == relus


def test_layers_can_stay_float(float_graph, ranges):
    model = float_graph[0]
    chosen = [name for name in layers(model) if "/stem/" not in name]
    quantised = quantize(model, ranges, chosen)
    made = {output: node for node in quantised.graph.node for output in node.output}
    for node in quantised.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert (node.input[1] in made) == (node.name in chosen)
    with pytest.raises(ExportError, match="No layer is left"):
        quantize(model, ranges, [])
    with pytest.raises(ExportError, match="/no/such/Gemm"):
        quantize(model, ranges, ["/no/such/Gemm"])


def test_scales():
    scale, zero, kind = activation_scale(Range(-1.0, 3.0), "onnxruntime")
    assert kind is np.uint8 and np.isclose(scale, 4 / 255) and zero == 64
    assert activation_scale(Range(0.5, 3.0), "onnxruntime")[1] == 0  # the range is widened to hold zero
    assert activation_scale(Range(-4.0, 3.0), "tensorrt") == (np.float32(4 / 127), 0, np.int8)
    weight = np.array([[1.0, -2.0], [0.0, 0.0]], np.float32)
    scales, values = weight_scales(weight, 0)
    assert np.allclose(scales, [2 / 127, 1]) and values.tolist() == [[64, -127], [0, 0]]


def test_empty_and_infinite_ranges_are_refused():
    calibrate.check_ranges({"a": Range(-1, 1)})
    with pytest.raises(ExportError, match=r"empty or infinite(.|\n)*a \[0, 0\]; b \[0, inf\]"):
        calibrate.check_ranges({"a": Range(0.0, 0.0), "b": Range(0.0, float("inf")), "c": Range(0.0, 1.0)})


def test_int8_needs_64_real_images(tmp_path):
    model = small_model("cast_small")
    with pytest.raises(ExportError, match="without real images"):
        export_onnx(model, tmp_path / "x.onnx", precision="int8")
    with pytest.raises(ExportError, match=r"8 images are too few(.|\n)*at least 64"):
        export_onnx(model, tmp_path / "x.onnx", precision="int8", calibrate=bundled.photos())
    (tmp_path / "bad").mkdir()
    for number in range(70):
        (tmp_path / "bad" / f"{number}.jpg").write_bytes(b"not an image")
    with pytest.raises(ExportError, match="None of 70 images can be read"):
        export_onnx(model, tmp_path / "x.onnx", precision="int8", calibrate=tmp_path / "bad")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="no images in"):
        export_onnx(model, tmp_path / "x.onnx", precision="int8", calibrate=tmp_path / "empty")
    assert not (tmp_path / "x.onnx").exists()


def test_int8_from_one_call(tmp_path):
    info = export_onnx(
        small_model("vit_conv_small"),
        tmp_path / "int8.onnx",
        precision="int8",
        calibrate=bundled.photos() * 8,
        keep_float=["*/head/*"],
        images=bundled.photos(),
        thresholds=STATED,
    )
    assert (info.precision, info.target) == ("int8", "onnxruntime")
    names = {check.measure for check in Report.from_dict(info.verification).checks}
    assert names == {"top1", "cosine"}


def test_a_shortfall_of_quality_fails(tmp_path):
    impossible = quality.Thresholds(top1=1.0, cosine=1.0, matched=1.0, iou=1.0)
    with pytest.raises(ExportError, match="cosine of centred scores"):
        export_onnx(
            small_model("cast_small"),
            tmp_path / "x.onnx",
            precision="fp16",
            images=bundled.photos()[:2],
            thresholds=impossible,
        )
    assert list(tmp_path.iterdir()) == []


def test_sensitivity_lists_the_worst_layer_first(float_graph, inputs, ranges):
    model = float_graph[0]
    names = layers(model)[4:7]
    spoiled = {**ranges, activations(model, [names[1]])[0]: Range(-3000.0, 3000.0)}
    table = sensitivity.measure(model, spoiled, reduced.first(inputs, 2), chosen=names)
    assert [len(table), table[0].layer] == [3, names[1]]
    assert table[0].error > 2 * table[-1].error
    assert names[1] in sensitivity.text(table).splitlines()[1]


def test_constant_outputs_are_refused(float_graph, inputs, ranges):
    model, _, options = float_graph
    spoiled = {name: Range(0.0, 1e9) for name in ranges}
    with pytest.raises(ExportError, match="do not change with its input"):
        reduced.refuse_constant(quantize(model, spoiled, layers(model)), options, inputs)


def test_matching_ignores_numbers_and_counts_pixels():
    sizes = np.array([10, 10, 10, 10, 0])
    labels = np.array([0, 0, 1, 2, 7])
    assert quality.match(labels, np.array([5, 5, 0, 3, 1]), sizes) == (1.0, 1.0)
    shared, overlap = quality.match(labels, np.array([1, 1, 0, 0, 0]), sizes)
    assert shared == 0.75 and np.isclose(overlap, (1 + 0.5 + 0) / 3)


def test_merged_levels_are_compared_as_they_are_shown():
    """The network's own levels are equal here, and its soft assignments are not."""
    superpixels = np.kron(np.arange(4, dtype=np.int32).reshape(1, 4), np.ones((8, 2), np.int32))
    inputs = Inputs(np.full((1, 8, 8, 3), 90, np.uint8), superpixels[None], (Path("flat"),))
    chain = [np.eye(2, dtype=np.float32)] * 3

    def outputs(*sides):
        first = np.array([[0.9, 0.1] if side == 0 else [0.1, 0.9] for side in sides], np.float32)
        labels = {f"level{number}": np.zeros(4, np.int32) for number in range(1, 5)}
        return {"embedding": np.ones(3), **labels} | {f"assignment{n}": a for n, a in enumerate([first, *chain], 1)}

    pairs = [(outputs(0, 0, 1, 1), outputs(0, 1, 1, 1))]
    bars = quality.THRESHOLDS["int8"]

    def matched(grouping):
        return [check.value for check in quality.compare(pairs, inputs, bars, grouping) if check.measure == "matched"]

    assert matched("assigned") == [1.0] * 4
    assert matched("merged") == [0.75] * 4


def test_centring_removes_what_all_images_share():
    rows = np.array([[100.0, 1, 0], [100, 0, 1]])
    assert quality.centred_cosine(rows, rows) == pytest.approx(1)
    assert quality.centred_cosine(rows, rows[::-1]) == pytest.approx(-1)


def test_reports_round_trip_and_name_what_falls_short():
    report = Report(
        8, "torch", "onnxruntime", [Check("logits", "error", 1e-6, 1e-4, 8), Check("level1", "images", 0.9, 0.98, 8, 1)]
    )
    again = Report.from_dict(report.to_dict())
    assert again == report and not report.passed
    assert [check.name for check in report.shortfalls] == ["level1"]
    assert "SHORT" in report.table() and "1.0e-06" in report.table()
    assert not Report(0, "", "").passed
