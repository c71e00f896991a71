"""Half the size of an ONNX file: weights stored in float16 and widened to float32 before use.

The graph computes in float32 as before; runtimes fold the casts when they load the file. Only the rounding of the
weights to half precision remains, which is what a checkpoint in half precision has too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

SMALLEST = 1024  # numbers; smaller tensors are not worth a node


def store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model with every large float32 initializer stored as float16 and a Cast that widens it."""
    import onnx
    from onnx import helper, numpy_helper

    out = onnx.ModelProto()
    out.CopyFrom(model)
    casts = []
    for index, tensor in enumerate(out.graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST:
            continue
        name = tensor.name
        value = numpy_helper.to_array(tensor)
        limit = np.finfo(np.float16).max
        half = np.clip(value, -limit, limit).astype(np.float16)
        out.graph.initializer[index].CopyFrom(numpy_helper.from_array(half, f"{name}_f16"))
        casts.append(helper.make_node("Cast", [f"{name}_f16"], [name], f"{name}_widen", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *out.graph.node]
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    return out
