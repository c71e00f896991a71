"""INT8 in the graph: Q/DQ around convolutions and linear layers, for ONNX Runtime or for TensorRT.

                    activations        weights                  bias
    onnxruntime     unsigned, offset   signed, per channel      int32, scale of input x weight
    tensorrt        signed, symmetric  signed, per channel      float (its parser refuses int32 bias)

Linear layers give float32, so that the residual stream, norms, softmax, similarities and sampling stay as they are.
Convolutions also quantise their output, which both runtimes need to run them in integers; for ONNX Runtime the ReLU in
between is left out, because an unsigned output whose zero is 0 cuts off negative values anyway.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import ExportError
from cast_sdk.export.precision.calibrate import Range

if TYPE_CHECKING:
    import onnx

Target = Literal["onnxruntime", "tensorrt"]
LAYERS = ("Conv", "Gemm")


def layers(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that can be quantised, in order: convolutions and linear layers with constant weights."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type in LAYERS and node.input[1] in constants]


def activations(model: onnx.ModelProto, chosen: Collection[str]) -> list[str]:
    """Values whose ranges `quantize` needs for these layers."""
    relu = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "Relu"}
    names = []
    for node in model.graph.node:
        if node.name in chosen:
            names.append(node.input[0])
            if node.op_type == "Conv":
                names.append(relu.get(node.output[0], node.output[0]))
    return list(dict.fromkeys(names))


def quantize(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    chosen: Collection[str],
    target: Target = "onnxruntime",
) -> onnx.ModelProto:
    """A copy of a float32 graph with the chosen layers in 8-bit integers.

    Args:
        model: from the lowering; at batch 1 its linear layers are `Gemm` nodes with weights [out, in].
        ranges: smallest and largest value of each of `activations(model, chosen)`.
        chosen: names out of `layers(model)`.
        target: who will run it.

    Raises:
        ExportError: for a layer the graph does not have, or when nothing is chosen.
    """
    unknown = set(chosen) - set(layers(model))
    if unknown or not chosen:
        raise ExportError(
            f"The graph has no convolution or linear layer called {', '.join(sorted(unknown))}."
            if unknown
            else "No layer is left to quantise.",
            remedy="cast-export sensitivity lists them",
        )
    return _Quantizer(model, ranges, set(chosen), target).run()


class _Quantizer:
    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, Range], chosen: set[str], target: Target) -> None:
        self.model = copy.deepcopy(model)
        self.ranges, self.chosen, self.target = ranges, chosen, target
        self.weights = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.scales: dict[str, np.float32] = {}
        self.reads: dict[str, str] = {}  # value -> its dequantised copy
        self.replaced: dict[str, str] = {}  # the same, where everyone reads the copy
        self.made: set[str] = set()

    def run(self) -> onnx.ModelProto:
        graph = self.model.graph
        relu = {node.input[0]: node for node in graph.node if node.op_type == "Relu"}
        dropped: set[str] = set()
        for node in list(graph.node):
            if node.name in dropped:
                continue
            if node.name not in self.chosen:
                node.input[:] = [self.replaced.get(name, name) for name in node.input]
                self.nodes.append(node)
                continue
            self._layer(node)
            if node.op_type == "Conv":
                output, after = node.output[0], relu.get(node.output[0])
                if after is not None:
                    dropped.add(after.name)
                    output = after.output[0]
                    if self.target == "onnxruntime":
                        node.output[0] = output
                    else:
                        self.nodes.append(after)
                self._activation(output)
                self.replaced[output] = self.reads[output]
        del graph.node[:]
        graph.node.extend(self.nodes)
        used = {name for node in graph.node for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        return self.model

    def _layer(self, node: onnx.NodeProto) -> None:
        """Append a layer with quantised input, weight and, for ONNX Runtime, bias."""
        source = node.input[0]
        self._activation(source)
        node.input[0] = self.reads[source]
        scales = self._weight(node)
        if self.target == "onnxruntime" and len(node.input) > 2:
            self._bias(node, scales * self.scales[source])
        self.nodes.append(node)

    def _activation(self, name: str) -> None:
        if name in self.reads:
            return
        scale, zero, kind = activation_scale(self.ranges[name], self.target)
        self.scales[name] = scale
        self._constant(f"{name}/scale", scale)
        self._constant(f"{name}/zero", np.array(zero, kind))
        parameters = [f"{name}/scale", f"{name}/zero"]
        self._node("QuantizeLinear", [name, *parameters], f"{name}/quantized")
        self._node("DequantizeLinear", [f"{name}/quantized", *parameters], f"{name}/read")
        self.reads[name] = f"{name}/read"

    def _weight(self, node: onnx.NodeProto) -> npt.NDArray[np.float32]:
        from onnx import numpy_helper

        name = node.input[1]
        weight = numpy_helper.to_array(self.weights[name])
        axis = 0 if node.op_type == "Conv" or _transposed(node) else 1
        scales, values = weight_scales(weight, axis)
        self._constant(f"{name}/int8", values)
        self._constant(f"{name}/scale", scales)
        self._constant(f"{name}/zero", np.zeros(len(scales), np.int8))
        inputs = [f"{name}/int8", f"{name}/scale", f"{name}/zero"]
        self._node("DequantizeLinear", inputs, f"{name}/read", axis=axis)
        node.input[1] = f"{name}/read"
        return scales

    def _bias(self, node: onnx.NodeProto, scales: npt.NDArray[np.float32]) -> None:
        from onnx import numpy_helper

        name = node.input[2]
        bias = numpy_helper.to_array(self.weights[name]).astype(np.float64)
        values = np.clip(np.rint(bias / scales), -(2**31), 2**31 - 1).astype(np.int32)
        unique = f"{node.name}/bias"  # a bias may be shared, its scale belongs to the layer
        self._constant(f"{unique}/int32", values)
        self._constant(f"{unique}/scale", scales.astype(np.float32))
        self._constant(f"{unique}/zero", np.zeros(len(scales), np.int32))
        inputs = [f"{unique}/int32", f"{unique}/scale", f"{unique}/zero"]
        self._node("DequantizeLinear", inputs, f"{unique}/read", axis=0)
        node.input[2] = f"{unique}/read"

    def _constant(self, name: str, value: Any) -> None:
        from onnx import numpy_helper

        if name not in self.weights:
            tensor = numpy_helper.from_array(np.asarray(value), name)
            self.model.graph.initializer.append(tensor)
            self.weights[name] = tensor

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        if output in self.made:
            return
        self.made.add(output)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes))


def activation_scale(values: Range, target: Target) -> tuple[np.float32, int, type]:
    """Scale, zero point and integer type for a range that is widened to hold zero."""
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    if target == "tensorrt":
        return np.float32(max(-low, high) / 127), 0, np.int8
    scale = np.float32((high - low) / 255)
    return scale, int(np.clip(np.rint(-low / scale), 0, 255)), np.uint8


def weight_scales(weight: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Symmetric scales per channel of `axis` and the rounded weights. A channel of zeros gets scale 1."""
    others = tuple(other for other in range(weight.ndim) if other != axis)
    largest = np.abs(weight).max(axis=others)
    scales = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    shape = [-1 if other == axis else 1 for other in range(weight.ndim)]
    return scales, np.clip(np.rint(weight / scales.reshape(shape)), -127, 127).astype(np.int8)


def _transposed(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
