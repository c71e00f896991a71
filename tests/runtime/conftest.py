"""A small ONNX graph that honours the export contract, so that runtime tests need no model and no torch."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cast_sdk.artifact import INFO_KEY, SPEC_KEY, ExportInfo
from cast_sdk.spec import ModelSpec, SuperpixelSettings

SIZE, COUNT, CLUSTERS = 96, 64, (16, 8, 4, 2)
SPEC = ModelSpec(
    name="fixture",
    family="cast",
    embed_dim=8,
    depths=(1, 1, 1, 1),
    num_heads=1,
    clusters=CLUSTERS,
    num_classes=10,
    image_size=SIZE,
    position_grid=12,
    superpixels=SuperpixelSettings(count=COUNT),
    class_names=tuple(f"thing {n}" for n in range(10)),
)


def build_graph(path: Path, *, spec: ModelSpec = SPEC, batch: int | None = 1, semantic: bool = False) -> Path:
    """Mean colour per superpixel; level 1: best of 16 directions; coarser levels by fixed tables (so they nest)."""
    rng = np.random.default_rng(7)
    names = ["embedding", "logits", *(f"level{n}" for n in range(1, 5)), *(["semantic"] if semantic else [])]
    constants = {
        "scale": np.float32(1 / 255),
        "middle": np.float32(0.5),
        "pixels_shape": np.array([0, SIZE * SIZE, 3], np.int64),
        "labels_shape": np.array([0, SIZE * SIZE, 1], np.int64),
        "index": np.arange(COUNT, dtype=np.int32),
        "one": np.float32(1),
        "spread": rng.standard_normal((3, CLUSTERS[0])).astype(np.float32),
        "widen": rng.standard_normal((3, 8)).astype(np.float32),
        "classify": 4 * rng.standard_normal((8, 10)).astype(np.float32),
    }
    for level, (fine, coarse) in enumerate(itertools.pairwise(CLUSTERS), start=2):
        constants[f"table{level}"] = (np.arange(fine) % coarse).astype(np.int32)
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        node("Mul", ["float", "scale"], ["unit"]),
        node("Sub", ["unit", "middle"], ["centred"]),
        node("Reshape", ["centred", "pixels_shape"], ["pixels"]),
        node("Reshape", ["superpixels", "labels_shape"], ["column"]),
        node("Equal", ["column", "index"], ["hit"]),
        node("Cast", ["hit"], ["assignment"], to=TensorProto.FLOAT),
        node("Transpose", ["assignment"], ["rows"], perm=[0, 2, 1]),
        node("MatMul", ["rows", "pixels"], ["sums"]),
        node("ReduceSum", ["rows", "last"], ["areas"], keepdims=1),
        node("Max", ["areas", "one"], ["divisor"]),
        node("Div", ["sums", "divisor"], ["means"]),
        node("MatMul", ["means", "spread"], ["scores"]),
        node("ArgMax", ["scores"], ["best"], axis=2, keepdims=0),
        node("Cast", ["best"], ["level1"], to=TensorProto.INT32),
        *(node("Gather", [f"table{n}", f"level{n - 1}"], [f"level{n}"]) for n in (2, 3, 4)),
        node("ReduceMean", ["means"], ["colour"], axes=[1], keepdims=0),
        node("MatMul", ["colour", "widen"], ["embedding"]),
        node("MatMul", ["embedding", "classify"], ["logits"]),
    ]
    constants["last"] = np.array([2], np.int64)
    if semantic:
        nodes.append(node("Gather", ["table2", "level1"], ["semantic"]))
    size = batch or "batch"
    shapes = {"embedding": [size, 8], "logits": [size, 10]}
    outputs = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT if name in shapes else TensorProto.INT32, shapes.get(name, [size, COUNT])
        )
        for name in names
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, [size, SIZE, SIZE, 3]),
        helper.make_tensor_value_info("superpixels", TensorProto.INT32, [size, SIZE, SIZE]),
    ]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "fixture", inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    info = ExportInfo("fp32", batch, SIZE, SIZE, COUNT, tuple(names), opset=17, created_by="tests")
    helper.set_model_props(model, {SPEC_KEY: spec.to_json(), INFO_KEY: info.to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def tiny_spec() -> ModelSpec:
    return SPEC


@pytest.fixture(scope="session")
def build_onnx() -> Callable[..., Path]:
    """`build_graph(path, spec=..., batch=..., semantic=...)`."""
    return build_graph


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_graph(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def dense_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = dataclasses.replace(SPEC, family="segmenter", num_classes=8, class_names=tuple("abcdefgh"))
    return build_graph(tmp_path_factory.mktemp("model") / "dense.onnx", spec=spec, semantic=True, batch=None)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A made-up scene, uint8 BGR 240 x 320: sky, ground, a house and texture."""
    rng = np.random.default_rng(3)
    image = np.empty((240, 320, 3), np.uint8)
    image[:] = np.linspace(250, 120, 240)[:, None, None] * np.array([1.0, 0.75, 0.5])
    image[150:] = (40, 120, 60)
    cv2.rectangle(image, (60, 80), (160, 190), (60, 70, 190), -1)
    cv2.fillPoly(image, [np.array([[50, 82], [110, 30], [170, 82]])], (30, 30, 90))
    cv2.circle(image, (260, 50), 24, (120, 230, 250), -1)
    return np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
