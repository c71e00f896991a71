"""A smaller ONNX file with the same numbers: weights that are exact in float16 are stored so and widened before use.

The weights of a checkpoint in half precision are, unless the lowering folded something into them. The graph computes
in float32 as before; runtimes fold the casts when they load the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

MIN_ELEMENTS = 1024  # smaller tensors are not worth a node


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model with large float32 initializers stored as float16 and a Cast where that loses nothing."""
    import onnx
    from onnx import helper, numpy_helper

    out = onnx.ModelProto()
    out.CopyFrom(model)
    casts = []
    for tensor in out.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < MIN_ELEMENTS:
            continue
        value = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), value):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_f16"))
        casts.append(helper.make_node("Cast", [f"{name}_f16"], [name], f"{name}_widen", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *out.graph.node]
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    return out
