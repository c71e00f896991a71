"""The precision of a built engine, read back from its own layer list, so that no other one is ever delivered.

TensorRT prints the same list from the builder's log (which needs no GPU) and from the engine inspector (which does).
Forms of a tensor: `{ Name: x, Dimensions: [1,384], ..., Datatype: Half, ... }` with constants in a list of their own
(TensorRT-RTX 1.7) and `{ Name: x, Dimensions: [1,384], Format/Datatype: Half }` without them (TensorRT-RTX 1.4 and
TensorRT 10, which may add a convolution's `Weights: {"Type": "Half", "Count": 23232}`).
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cast_sdk.errors import ExportError
from cast_sdk.runtime.engine.api import TensorRT

_TENSOR = re.compile(
    r"\{ Name: (?P<name>[^,{}]*), (?:Location: \w+, )?Dimensions: \[(?P<dims>[\d,]*)\][^{}]*?"
    r"Datatype: (?P<type>[^,{}]+)"
)
_CONSTANTS = re.compile(r"Constants: \[(.*?)\], Outputs: ", re.DOTALL)
_INPUTS = re.compile(r"Inputs: \[(.*?)\](?:, Constants: |, Outputs: )", re.DOTALL)
_WEIGHTS = re.compile(r'Weights: \{"Type": "(\w+)", "Count": (\d+)\}')
_LAYER = re.compile(r"^Name: .*?, LayerType: (\w+),", re.MULTILINE)
_PRODUCTS = ("gemm", "correlation", "conv", "matrixmultiply", "fully_connected")
# DataType names in text or enum form -> ours. Integers of indices and tables are no weights.
_NAMES = {
    "float": "fp32",
    "half": "fp16",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "int8": "int8",
    "fp8": "fp8",
    "fp32": "fp32",
    "fp16": "fp16",
}


@dataclass
class Readback:
    """Element counts of weights and numbers of matrix products by precision.

    Attributes:
        source: "layers" (of the built engine) or "network" (of the strongly typed network, where the layer list of this
            TensorRT version cannot be read: TensorRT promises to keep its types).
        weights: elements of constants by precision, e.g. {"fp16": 21000000, "fp32": 90000}.
        products: matrix products and convolutions by precision: int8 if an input has it, else that of the first input.
        expected: elements of the graph's weights, about.
    """

    source: str
    weights: Counter[str] = field(default_factory=Counter)
    products: Counter[str] = field(default_factory=Counter)
    expected: int = 0

    @property
    def conclusive(self) -> bool:
        """Whether the list names enough weights to speak for all: many lines of TensorRT 10 name activations only."""
        return bool(self.weights) and 2 * self.weights.total() >= self.expected

    @property
    def counts(self) -> Counter[str]:
        """What the precision is judged by: the weights where they are conclusive, else the products."""
        return self.weights if self.conclusive or not self.products else self.products

    def share(self, precision: str) -> float:
        """Part of `counts` that has a precision, 0..1."""
        return self.counts[precision] / max(1, self.counts.total())

    def to_dict(self) -> dict[str, Any]:
        return {"source": self.source, "weights": dict(self.weights), "products": dict(self.products)}

    def __bool__(self) -> bool:
        return bool(self.weights or self.products)


def read_layers(text: str) -> Readback:
    """Read a layer list as TensorRT prints it."""
    found = Readback("layers")
    seen: set[str] = set()
    starts = [match.start() for match in _LAYER.finditer(text)] + [len(text)]
    for start, end in itertools.pairwise(starts):
        layer = text[start:end]
        kind = (match.group(1) if (match := _LAYER.match(layer)) else "").lower()
        inputs = _INPUTS.search(layer)
        tensors = list(_TENSOR.finditer(inputs.group(1))) if inputs else []
        if any(word in kind for word in _PRODUCTS) and tensors:
            types = [_name(tensor["type"]) for tensor in tensors]
            found.products["int8" if "int8" in types else types[0]] += 1
        constants = _CONSTANTS.search(layer)
        # TensorRT 10 lists constants among the inputs; folded ones carry this ending.
        listed = _TENSOR.finditer(constants.group(1)) if constants else (t for t in tensors if "_dconst" in t["name"])
        for tensor in listed:
            if tensor["name"] not in seen and _name(tensor["type"]) in _NAMES.values():
                seen.add(tensor["name"])
                found.weights[_name(tensor["type"])] += math.prod(int(n) for n in tensor["dims"].split(",") if n)
        for dtype, count in _WEIGHTS.findall(layer):
            found.weights[_name(dtype)] += int(count)
    return found


def read_network(trt: TensorRT, network: Any) -> Readback:
    """Precision of the matrix products that a parsed, strongly typed network asks for."""
    found = Readback("network")
    kinds = [trt.member("LayerType", name) for name in ("MATRIX_MULTIPLY", "CONVOLUTION")]
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type in kinds:
            found.products[_name(layer.get_input(0).dtype.name)] += 1
    return found


def has_precision(asked: str, found: Readback) -> bool:
    """Whether what was built has the precision that was asked for.

    float32 allows nothing below it; fp16 means half of the weights at least (norms, similarities and logits stay in
    float32); int8 means a third of them at least (which layers stay in float is measured at export).
    """
    low = sum(found.share(name) for name in ("fp16", "bf16", "int8", "fp8"))
    fits = {"fp32": low == 0, "fp16": found.share("fp16") >= 0.5, "int8": found.share("int8") >= 1 / 3}
    return bool(found) and fits[asked]


def check_precision(asked: str, found: Readback) -> None:
    """Raises ExportError when what was built has another precision than asked for; see `has_precision`."""
    if not has_precision(asked, found):
        counts, total = found.counts, max(1, found.counts.total())
        shares = ", ".join(f"{name} {count / total:.1%}" for name, count in counts.most_common())
        raise ExportError(
            f"The built engine does not have the precision that was asked for, {asked}.",
            found=f"weights of {shares}" if shares else "a layer list without types",
            remedy=f"export the graph again with --precision {asked}: the precision is written in it",
        )


def _name(dtype: str) -> str:
    """Ours for a name such as "Half", or for a description: "Channel major FP16 format where channel % 8 == 0"."""
    words = dtype.lower().split()
    return next((_NAMES[word] for word in words if word in _NAMES), words[0])
