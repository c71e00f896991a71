"""A graph and its description: compared when the file is opened, whoever wrote it."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from standin import StandIn

from cast_sdk.artifact import INFO_KEY, SPEC_KEY, ExportInfo
from cast_sdk.errors import ArtifactError
from cast_sdk.runtime import Runtime
from cast_sdk.spec import ModelSpec


def changed(path, target, *, spec=(), info=(), graph=lambda model: None):
    """A copy of an .onnx whose description or graph says something else."""
    model = onnx.load(path)
    entries = {entry.key: entry for entry in model.metadata_props}
    described = ModelSpec.from_json(entries[SPEC_KEY].value)
    entries[SPEC_KEY].value = dataclasses.replace(described, **dict(spec)).to_json()
    record = ExportInfo.from_json(entries[INFO_KEY].value)
    entries[INFO_KEY].value = dataclasses.replace(record, **dict(info)).to_json()
    graph(model)
    onnx.save(model, target)
    return target


def rename(model):
    for node in model.graph.node:
        node.output[:] = ["feature" if name == "embedding" else name for name in node.output]
        node.input[:] = ["feature" if name == "embedding" else name for name in node.input]
    model.graph.output[0].name = "feature"


def another_dtype(model):
    output = next(one for one in model.graph.output if one.name == "level1")
    model.graph.node.append(helper.make_node("Cast", ["level1"], ["level1_long"], to=TensorProto.INT64))
    output.name = "level1_long"
    output.type.tensor_type.elem_type = TensorProto.INT64
    for node in model.graph.node:
        node.output[:] = [{"level1": "inner", "level1_long": "level1"}.get(name, name) for name in node.output]
        node.input[:] = ["inner" if name == "level1" else name for name in node.input]
    output.name = "level1"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"info": {"height": 95}}, r"the input 'image' is uint8 \[1, 96, 96, 3\], described as uint8 \[1, 95, 96, 3\]"),
        ({"info": {"batch": 2}}, "the input 'image'"),
        ({"info": {"num_superpixels": 63}}, "the output 'level1'"),
        ({"info": {"outputs": ("embedding", "logits")}}, "an output 'level1' that is not described"),
        ({"info": {"outputs": ("embedding", "logits", "level1", "level2", "level3", "level4", "x")}}, "no output 'x'"),
        ({"spec": {"num_classes": 11}}, r"the output 'logits' is float32 \[1, 10\], described as float32 \[1, 11\]"),
        ({"spec": {"family": "segmenter"}}, "no output 'semantic'"),
        ({"graph": rename}, "no output 'embedding'"),
        ({"graph": another_dtype}, "the output 'level1' is int64"),
    ],
)
def test_a_difference_is_named_when_the_file_is_opened(tiny_onnx, tmp_path, change, words, backend):
    if backend == "openvino":
        pytest.importorskip("openvino")
    path = changed(tiny_onnx, tmp_path / "changed.onnx", **change)
    with pytest.raises(ArtifactError, match=rf"is not what its description says(?s:.)*({words})"):
        Runtime(path, backend=backend)


def test_graphs_that_agree_are_opened(tiny_onnx, dense_onnx):
    for path in (tiny_onnx, dense_onnx):
        Runtime(path).close()


@pytest.mark.parametrize("name", ["embedding", "logits", "tokens1"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_every_output_is_looked_at(name, value):
    with StandIn() as rt:
        prepared = rt.add_superpixels(rt.prepare(np.zeros((8, 8, 3), np.uint8)))
        outputs = rt.infer([prepared])[0]
        outputs[name] = np.full(3, value, np.float32)
        with pytest.raises(ArtifactError, match=f"output '{name}' is NaN or infinite"):
            rt.finish(prepared, outputs)


def test_classes_that_the_model_does_not_have_are_refused():
    with StandIn() as rt:
        prepared = rt.add_superpixels(rt.prepare(np.zeros((8, 8, 3), np.uint8)))
        outputs = rt.infer([prepared])[0]
        outputs["semantic"] = np.full(144, 10**9, np.int32)
        with pytest.raises(ArtifactError, match="and describes 3"):
            rt.finish(prepared, outputs)
