"""Float16 storage of weights in an ONNX file."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from cast_sdk.export.compact import compact


def linear(weight, bias):
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 48])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model, x):
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def test_weights_of_a_half_checkpoint_shrink_and_nothing_changes():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 48)).astype(np.float16).astype(np.float32)
    model = linear(weight, rng.standard_normal(48).astype(np.float32))
    small = compact(model)
    onnx.checker.check_model(small, full_check=True)
    assert small.ByteSize() < 0.6 * model.ByteSize()
    x = rng.standard_normal((1, 64)).astype(np.float32)
    np.testing.assert_array_equal(run(small, x), run(model, x))
    assert [t.name for t in model.graph.initializer] == ["w", "b"], "the input is left alone"


def test_weights_that_would_be_rounded_are_left():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((64, 48)).astype(np.float32)
    weight[0, 0] = 1e6  # beyond float16
    model = linear(weight, np.zeros(48, np.float32))
    assert compact(model).SerializeToString() == model.SerializeToString()
