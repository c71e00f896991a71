"""Version branches of the builder that cannot be installed on a test machine: on stand-ins with those versions' names.

The names come from the published Python bindings (`tensorrt_api.json`): whatever 10.3 or 11.4 lacks is an error here.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from fake_tensorrt import API, LAST_CONFIG, Behaviour, FakeCudart, install
from onnx import TensorProto, helper, numpy_helper

import cast_sdk.runtime.engine.api as tensorrt_api
import cast_sdk.runtime.engine.build as engine_build
from cast_sdk.artifact import INFO_KEY, SPEC_KEY, ExportInfo
from cast_sdk.errors import ExportError, InputError, MissingDependencyError
from cast_sdk.export.engines import tensorrt as export_tensorrt
from cast_sdk.export.engines.tensorrt import build_engine
from cast_sdk.export.verification.engine_parity import compare
from cast_sdk.export.verification.quality import match
from cast_sdk.export.verification.report import Check, Report
from cast_sdk.runtime.engine import cuda as cuda_memory
from cast_sdk.runtime.engine.api import load_tensorrt
from cast_sdk.runtime.engine.progress import BuildProgress, Fraction
from cast_sdk.spec import ModelSpec

ENTERPRISE = ("tensorrt 10.3", "tensorrt 10.13", "tensorrt 10.16", "tensorrt 11.4")
REMOVED_IN_11 = ("FP16", "BF16", "INT8", "FP8", "INT4", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS")


@pytest.fixture
def graph(tmp_path):
    """The smallest graph with a product, and a record as cast_sdk writes it."""

    def make(precision="fp32", batch=1):
        dtype = np.float16 if precision == "fp16" else np.float32
        weights = numpy_helper.from_array(np.ones((3, 8), dtype), "weights")
        element = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
        nodes = [
            helper.make_node("Cast", ["image"], ["x"], to=element),
            helper.make_node("MatMul", ["x", "weights"], ["y"]),
            helper.make_node("Cast", ["y"], ["embedding"], to=TensorProto.FLOAT),
        ]
        size = batch or "batch"
        inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, [size, 4, 4, 3])]
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [size, 4, 4, 8])]
        model = helper.make_model(
            helper.make_graph(nodes, "g", inputs, outputs, [weights]),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        spec = ModelSpec("m", "vit", 8, (1,), 1, (), 0, 4, 1)
        info = ExportInfo(precision, batch, 4, 4, 0, ("embedding",), opset=17)
        helper.set_model_props(model, {SPEC_KEY: spec.to_json(), INFO_KEY: info.to_json()})
        onnx.save(model, tmp_path / "g.onnx")
        return tmp_path / "g.onnx"

    return make


@pytest.fixture
def no_run(monkeypatch):
    """Building only; that the engine agrees with its graph is another test's business."""
    monkeypatch.setattr(export_tensorrt, "measure", lambda *_: {"ran": False, "reason": "stand-in"})


@pytest.mark.parametrize("version", ENTERPRISE)
def test_one_recipe_for_every_version(graph, tmp_path, monkeypatch, no_run, version):
    install(monkeypatch, version)
    module = sys.modules["tensorrt"]
    record = build_engine(
        graph("fp16"),
        tmp_path / "g.engine",
        workspace_mb=256,
        version_compatible=True,
        hardware_compatible=True,
        progress=False,
    )
    assert (record.flavor, record.version) == ("tensorrt", API[version]["version"])
    assert record.targets == ("sm86",) and record.gpu == "Stand-in RTX" and record.version_compatible
    assert record.readback["source"] == "layers" and record.precision == "fp16"
    config = LAST_CONFIG["tensorrt"]
    assert config._pools == {module.MemoryPoolType.WORKSPACE: 256 << 20}
    assert config._flags == {module.BuilderFlag.VERSION_COMPATIBLE}  # and no precision flag
    assert config.hardware_compatibility_level == module.HardwareCompatibilityLevel.AMPERE_PLUS
    assert config.profiling_verbosity == module.ProfilingVerbosity.DETAILED
    assert load_tensorrt("tensorrt").network_flags() == 1 << module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    if version == "tensorrt 11.4":
        assert not any(hasattr(module.BuilderFlag, name) for name in REMOVED_IN_11)


def test_no_source_names_what_tensorrt_11_removed():
    removed = {*REMOVED_IN_11, "EXPLICIT_BATCH", "int8_calibrator", "platform_has_fast_fp16", "execute_async_v2"}
    removed |= {"execute_v2", "nptype", "get_binding_index", "device_memory_size", "build_engine_with_config"}
    root = Path(__file__).parents[3]
    for path in (*root.glob("runtime/**/*.py"), *root.glob("export/*.py")):
        used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not used & removed, f"{path.name} uses {used & removed}"


def test_auto_takes_tensorrt_with_a_gpu_and_rtx_without(graph, tmp_path, monkeypatch, no_run):
    install(monkeypatch, "tensorrt 10.13", "rtx 1.7")
    assert build_engine(graph(), tmp_path / "g.engine", progress=False).flavor == "tensorrt"
    crossed = build_engine(graph(), tmp_path / "g.engine", targets=("sm89", "12.0"), progress=False)
    assert crossed.flavor == "rtx" and crossed.targets == ("sm89", "sm120")
    monkeypatch.setattr(engine_build, "find_gpu", lambda _=0: None)
    assert build_engine(graph(), tmp_path / "g.engine", progress=False).flavor == "rtx"


def test_tensorrt_without_a_gpu_names_the_command_for_the_target(graph, tmp_path, monkeypatch):
    install(monkeypatch, "tensorrt 10.3")
    monkeypatch.setattr(engine_build, "find_gpu", lambda _=0: None)
    monkeypatch.setattr(cuda_memory, "cudart_libraries", lambda: iter([]))
    with pytest.raises(MissingDependencyError, match="builds on the GPU that will run the engine") as caught:
        build_engine(graph(), tmp_path / "g.engine", workspace_mb=512, version_compatible=True)
    expected = "cast-export --onnx g.onnx --trt --flavor tensorrt --out g.engine --workspace 512 --version-compatible"
    assert expected in caught.value.remedy and str(tmp_path / "g.onnx") in caught.value.remedy


def test_nothing_installed(graph, tmp_path, monkeypatch):
    install(monkeypatch)
    with pytest.raises(MissingDependencyError, match="neither tensorrt nor tensorrt_rtx") as caught:
        build_engine(graph(), tmp_path / "g.engine")
    assert "tensorrt>=" in caught.value.remedy and "tensorrt-rtx>=" in caught.value.remedy
    with pytest.raises(MissingDependencyError, match="package tensorrt_rtx cannot be imported"):
        build_engine(graph(), tmp_path / "g.engine", flavor="rtx")


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0.post1", "10.0.1"])
def test_versions_that_are_too_old(graph, tmp_path, monkeypatch, version):
    install(monkeypatch, "tensorrt 10.3")
    sys.modules["tensorrt"].__version__ = version
    with pytest.raises(MissingDependencyError, match=f"tensorrt {version} is too old: 10.3 is the first"):
        build_engine(graph(), tmp_path / "g.engine")
    monkeypatch.setattr(tensorrt_api, "is_jetson", lambda: True)
    with pytest.raises(MissingDependencyError, match=r"JetPack 6.1 or newer has it"):
        load_tensorrt("tensorrt")


def test_a_jetson_takes_half_of_the_free_memory_and_no_hardware_compatibility(graph, tmp_path, monkeypatch, no_run):
    install(monkeypatch, "tensorrt 10.3", cudart=FakeCudart("Orin (nvgpu)", (8, 7)))
    monkeypatch.setattr(engine_build, "is_jetson", lambda: True)
    monkeypatch.setattr(engine_build, "_available_mb", lambda: 6000)
    assert build_engine(graph(), tmp_path / "g.engine", progress=False).targets == ("sm87",)
    assert LAST_CONFIG["tensorrt"]._pools == {sys.modules["tensorrt"].MemoryPoolType.WORKSPACE: 3000 << 20}
    with pytest.raises(ExportError, match="is a Jetson"):
        build_engine(graph(), tmp_path / "g.engine", hardware_compatible=True)


def test_a_card_that_rtx_does_not_support(graph, tmp_path, monkeypatch):
    install(monkeypatch, "rtx 1.7", cudart=FakeCudart("NVIDIA H100 80GB HBM3", (9, 0)))
    with pytest.raises(
        InputError, match=r"cannot build for NVIDIA H100 80GB HBM3 \(sm90\).\n  Found: it builds for sm75"
    ):
        build_engine(graph(), tmp_path / "g.engine")


def test_the_timing_cache_is_read_extended_and_refused_when_foreign(graph, tmp_path, monkeypatch, no_run):
    _, behaviour = install(monkeypatch, "tensorrt 10.3")
    cache = tmp_path / "times.cache"
    for expected in (b"+", b"++"):
        build_engine(graph(), tmp_path / "g.engine", timing_cache=cache, progress=False)
        assert cache.read_bytes() == expected
    behaviour.accepts_timing_cache = False
    with pytest.raises(ExportError, match="belongs to another GPU or version") as caught:
        build_engine(graph(), tmp_path / "g.engine", timing_cache=cache, progress=False)
    assert f"delete {cache}" in caught.value.remedy


def test_a_failed_build_says_what_tensorrt_logged_and_leaves_the_old_engine(graph, tmp_path, monkeypatch, no_run):
    _, behaviour = install(monkeypatch, "tensorrt 10.3")
    build_engine(graph(), tmp_path / "g.engine", progress=False)
    before = (tmp_path / "g.engine").read_bytes()
    behaviour.builds = False
    with pytest.raises(ExportError, match="Could not find any implementation for node X"):
        build_engine(graph("fp16"), tmp_path / "g.engine", progress=False)
    assert (tmp_path / "g.engine").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.engine", "g.engine.json", "g.onnx"]


def test_int8_needs_a_version_that_has_int8_convolutions(graph, tmp_path, monkeypatch):
    _, behaviour = install(monkeypatch, "rtx 1.4")
    behaviour.builds = False  # as the real 1.4, 1.5 and 1.6 do on quantised convolutions
    with pytest.raises(ExportError, match=r"RTX 1.4.0.76 cannot build") as caught:
        build_engine(graph("int8"), tmp_path / "g.engine", progress=False)
    assert caught.value.remedy.startswith("pip install -U 'tensorrt_rtx>=1.7'")


def test_without_a_layer_list_the_strongly_typed_network_is_read(graph, tmp_path, monkeypatch, no_run):
    _, behaviour = install(monkeypatch, "tensorrt 10.3")
    behaviour.lists_layers = False
    with pytest.warns(RuntimeWarning, match="did not list the layers"):
        record = build_engine(graph(), tmp_path / "g.engine", progress=False)
    assert record.readback == {"source": "network", "weights": {}, "products": {"fp32": 1}}


def test_a_shortfall_against_the_graph_leaves_nothing(graph, tmp_path, monkeypatch):
    install(monkeypatch, "tensorrt 10.3")
    short = Report(8, "graph", "engine", [Check("level1", "superpixels", 0.6, 0.98, 8)])
    monkeypatch.setattr(export_tensorrt, "measure", lambda *_: {"ran": True, **short.to_dict()})
    with pytest.raises(ExportError, match=r"does not agree with the graph.*\n.*level1, equal labels: 60.00% \(bar 98"):
        build_engine(graph(), tmp_path / "g.engine", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["g.onnx"]


def test_a_process_that_cannot_run_the_engine_is_an_error_with_its_last_words(graph, tmp_path, monkeypatch):
    """The fresh process sees the real machine, where the stand-in's plan cannot be loaded."""
    install(monkeypatch, "tensorrt 10.3")
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ExportError, match=r"not be run in a fresh process.\n  Found: exit code 1: "):
        build_engine(graph(), tmp_path / "g.engine", progress=False, images=[photo])
    assert not (tmp_path / "g.engine").exists()


# what is measured -----------------------------------------------------------------------------------------------------


def outputs(seed=0, **changes):
    rng = np.random.default_rng(seed)
    base = {"embedding": rng.standard_normal((1, 8)).astype(np.float32), "level1": rng.integers(0, 9, (1, 64))}
    return {**base, **changes}


def shortfalls(precision, *pairs):
    superpixels = np.arange(64, dtype=np.int32).reshape(1, 8, 8)
    checks = compare(precision, [(*pair, superpixels) for pair in pairs])
    return [f"{check.name} {check.measure}" for check in checks if not check.passed]


def test_parity_of_equal_renumbered_and_wrong_outputs():
    assert shortfalls("fp32", (outputs(1), outputs(1)), (outputs(2), outputs(2))) == []
    renumbered = outputs(1, level1=8 - outputs(1)["level1"])
    assert shortfalls("fp16", (outputs(1), renumbered)) == []
    assert shortfalls("fp32", (outputs(1), renumbered)) == ["level1 superpixels"]
    assert shortfalls("int8", (outputs(1), outputs(2))) == ["embedding error", "level1 matched"]
    broken = outputs(1)
    broken["embedding"] = broken["embedding"] * np.float32("nan")
    assert shortfalls("fp16", (outputs(1), broken)) == ["embedding error"]
    assert shortfalls("fp16", (outputs(1), outputs(1)), (outputs(1), broken)) == ["embedding error"]
    assert not Report(0, "graph", "engine", compare("fp32", [])).passed


def test_parity_of_a_batch_matches_each_image_by_itself_and_by_its_pixels():
    superpixels = np.zeros((2, 4, 4), np.int32)
    superpixels[:, 0, 0] = 1
    level = np.array([[0, 0], [0, 0]])
    moved = {"level1": np.array([[0, 1], [1, 1]])}
    values = {check.measure: check.value for check in compare("fp32", [({"level1": level}, moved, superpixels)])}
    assert values["superpixels"] == 0.25
    assert values["matched"] == pytest.approx((15 / 16 + 1) / 2)


def test_matching_ignores_numbers_and_sees_merging_and_splitting():
    first, pixels = np.repeat(np.arange(4), 25), np.ones(100)
    assert match(first, (first * 7 + 3) % 11, pixels)[0] == 1.0
    assert match(first, first // 2, pixels)[0] == match(first // 2, first, pixels)[0] == 0.5
    moved = first.copy()
    moved[:5] = 1
    assert match(first, moved, pixels)[0] == pytest.approx(0.95)


# progress -------------------------------------------------------------------------------------------------------------


def test_the_bar_never_falls_and_ends_full():
    fraction, seen = Fraction(), []
    fraction.start("build", None, 2)
    for step in range(2):
        fraction.start("inner", "build", 4)
        for inner in range(4):
            fraction.step("inner", inner)
            seen.append(fraction.value)
        fraction.finish("inner")
        fraction.step("build", step)
        seen.append(fraction.value)
    fraction.finish("build")
    assert seen == sorted(seen) and seen[3] == 0.5 and fraction.value == 1.0
    fraction.step("unknown", 1)
    fraction.finish("unknown")


def test_an_interruption_ends_the_build(graph, tmp_path, monkeypatch):
    install(monkeypatch, "tensorrt 10.3")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Fraction, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_engine(graph(), tmp_path / "g.engine", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["g.onnx"]


def test_the_bar_is_on_stderr(monkeypatch, capsys):
    install(monkeypatch, "rtx 1.7")
    with BuildProgress(load_tensorrt("rtx")) as progress:
        progress.monitor.phase_start("Building engine", None, 1)
        assert progress.monitor.step_complete("Building engine", 0) is True
        progress.monitor.phase_finish("Building engine")
    captured = capsys.readouterr()
    assert "Building with TensorRT-RTX 1.7" in captured.err and not captured.out


def test_importing_the_builder_needs_neither_torch_nor_onnx():
    code = "import sys, cast_sdk.export.engines.tensorrt, cast_sdk.export.verification.engine_parity\n"
    code += "import cast_sdk.runtime.backends.tensorrt\n"
    code += "print([m for m in ('torch', 'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
    assert Behaviour.builds
