"""ONNX graphs as data: tidying, the rules every exported graph keeps, metadata, choice of outputs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cast_sdk.artifact import INFO_KEY, SPEC_KEY, ExportInfo
from cast_sdk.errors import ExportError
from cast_sdk.spec import ModelSpec

if TYPE_CHECKING:
    import onnx

# Data-dependent shapes and control flow break static engines and CUDA graphs; the others are wrong or missing in some
# versions of TensorRT (docs/export.md).
FORBIDDEN = frozenset(
    {"Loop", "If", "Scan", "NonZero", "Unique", "Compress", "GridSample", "CumSum", "NonMaxSuppression", "Shape"}
)
SCATTERS = frozenset({"ScatterElements", "ScatterND"})


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants, drop dead and identity nodes, and remove what the exporter left of shapes and sources."""
    import onnxscript.optimizer

    model = onnxscript.optimizer.optimize(model)
    del model.graph.value_info[:]  # shapes of intermediate values; stale after the folding, and inferred when loaded
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    return model


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator occurs; those of another domain with its name in front."""
    return Counter(f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in model.graph.node)


def broken_rules(model: onnx.ModelProto) -> list[str]:
    """What a graph breaks of the rules: standard operators only, none of `FORBIDDEN`, no scatter with a reduction, no
    subgraphs, static shapes but for a batch axis called "batch"."""
    import onnx

    broken = []
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            broken.append(f"operator {node.domain}.{node.op_type} of node {node.name!r} is not a standard one")
        if node.op_type in FORBIDDEN:
            broken.append(f"operator {node.op_type} of node {node.name!r}")
        if node.op_type in SCATTERS and any(
            a.name == "reduction" and a.s not in (b"", b"none") for a in node.attribute
        ):
            broken.append(f"{node.op_type} with a reduction, node {node.name!r}")
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            broken.append(f"node {node.name!r} holds a subgraph")
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    dynamic = any(_unknown(value) for value in graph.input)
    for value in [*graph.input, *graph.output, *([] if dynamic else graph.value_info)]:
        sizes = value.type.tensor_type.shape.dim
        allowed = [axis == 0 and dim.dim_param == "batch" for axis, dim in enumerate(sizes)]
        if any(not dim.HasField("dim_value") and not ok for dim, ok in zip(sizes, allowed, strict=True)):
            broken.append(f"value {value.name!r} has no static shape")
    return broken


def check(model: onnx.ModelProto) -> None:
    """The ONNX checker with full inference, and the rules.

    Raises:
        ExportError: naming every rule that is broken.
    """
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            "The exported graph does not pass the ONNX checker.",
            found=str(error),
            remedy="report this with the versions of torch and onnxscript",
        ) from error
    broken = broken_rules(model)
    if broken:
        raise ExportError(
            "The exported graph holds what engines and runtimes cannot run.",
            found="; ".join(broken[:8]) + (f"; and {len(broken) - 8} more" if len(broken) > 8 else ""),
            remedy="report this with the versions of torch and onnxscript",
        )


def with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """A copy with these outputs only, in this order, without the nodes and weights that nothing reads any more."""
    import onnx

    known = {value.name: value for value in model.graph.output}
    used, nodes = set(names), []
    for node in reversed(model.graph.node):
        if used.intersection(node.output):
            nodes.append(node)
            used.update(name for name in node.input if name)
    graph = onnx.helper.make_graph(
        nodes[::-1],
        model.graph.name,
        model.graph.input,
        [known[name] for name in names],
        [tensor for tensor in model.graph.initializer if tensor.name in used],
    )
    copy = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    copy.producer_name, copy.producer_version = model.producer_name, model.producer_version
    return copy


def set_metadata(model: onnx.ModelProto, spec: ModelSpec, info: ExportInfo) -> None:
    """Write the description and the record of the export into the file's metadata."""
    del model.metadata_props[:]
    for key, value in ((SPEC_KEY, spec.to_json()), (INFO_KEY, info.to_json())):
        model.metadata_props.add(key=key, value=value)


def _unknown(value: onnx.ValueInfoProto) -> bool:
    return any(not dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
