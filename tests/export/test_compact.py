"""Float16 storage of weights in an ONNX file."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from cast_sdk.export.compact import store_half


def linear(rng):
    weight = rng.standard_normal((64, 48)).astype(np.float32)
    bias = rng.standard_normal(48).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 48])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), weight, bias


def test_computes_in_float32_with_rounded_weights():
    rng = np.random.default_rng(0)
    model, weight, bias = linear(rng)
    small = store_half(model)
    onnx.checker.check_model(small, full_check=True)
    assert small.ByteSize() < 0.6 * model.ByteSize()
    x = rng.standard_normal((1, 64)).astype(np.float32)
    (y,) = ort.InferenceSession(small.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    expected = x @ weight.astype(np.float16).astype(np.float32) + bias
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert [t.name for t in model.graph.initializer] == ["w", "b"], "the input is left alone"
