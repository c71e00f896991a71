"""What is found out about an engine before it is loaded: no GPU and no TensorRT needed."""

from __future__ import annotations

import dataclasses
import json
import types
import warnings

import pytest

from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ArtifactError, MissingDependencyError
from cast_sdk.runtime import Runtime
from cast_sdk.runtime.engine.api import TensorRT, current_platform, version_tuple
from cast_sdk.runtime.engine.cuda import Gpu
from cast_sdk.runtime.engine.record import (
    EngineInfo,
    check_device,
    check_package,
    check_plan,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from cast_sdk.spec import ModelSpec
from cast_sdk.system.files import sha256

ORIN = Gpu(0, "Orin (nvgpu)", (8, 7))


def installed(version="10.3.0", flavor="tensorrt", lean=False):
    name = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}[flavor] + ("_lean" if lean else "")
    module = types.SimpleNamespace(__name__=name, __file__=f"/somewhere/{name}/__init__.py")
    return TensorRT(module, flavor, version, lean)


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "cast.engine"
    path.write_bytes(bytes(range(256)) * 16)
    return path


@pytest.fixture
def record(engine):
    spec = ModelSpec("m", "cast", 8, (1, 1, 1, 1), 1, (16, 8, 4, 2), 10, 96, 12)
    return EngineInfo(
        spec=spec,
        info=ExportInfo("fp16", 1, 96, 96, 64, ("embedding", "level1"), opset=17),
        flavor="tensorrt",
        version="10.3.0",
        targets=("sm87",),
        gpu="Orin (nvgpu)",
        platform=current_platform(),
        plan_sha256=sha256(engine),
        plan_bytes=4096,
        onnx_sha256="ab" * 32,
        onnx_name="cast.onnx",
        readback={"source": "layers", "weights": {"fp16": 9}, "products": {}},
        parity={"ran": False, "reason": "no GPU"},
    )


def test_the_record_survives_and_lies_beside_the_engine(engine, record):
    write_sidecar(engine, record)
    assert sidecar_path(engine).name == "cast.engine.json"
    assert read_sidecar(engine) == record
    assert record.precision == "fp16" and record.package == "TensorRT 10.3.0"


def test_an_engine_without_its_record_is_refused_before_anything_is_imported(engine):
    with pytest.raises(
        ArtifactError, match=r"record cast.engine.json is missing.*\n  Remedy: copy cast.engine.json together"
    ):
        Runtime(engine)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda text: text.replace('"fp16",', '"fp32",', 1), "was edited"),
        (lambda text: text.replace('"plan_bytes": 4096', '"plan_bytes": 4095'), "was edited"),
        (lambda text: text.replace('"schema_version": 1,\n "spec"', '"schema_version": 9,\n "spec"'), "schema 9"),
        (lambda text: text[:100], "cannot be read"),
        (lambda text: "[]", "JSON of type list"),
        (lambda text: "{}", "schema None"),
    ],
)
def test_a_damaged_or_edited_record_is_refused(engine, record, damage, message):
    write_sidecar(engine, record)
    path = sidecar_path(engine)
    before = path.read_text()
    path.write_text(damage(before))
    assert path.read_text() != before
    with pytest.raises(ArtifactError, match=message):
        Runtime(engine)


def test_a_record_with_a_foreign_field_is_refused(engine, record):
    write_sidecar(engine, record)
    path = sidecar_path(engine)
    data = json.loads(path.read_text())
    del data["record_sha256"]
    path.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match="edited"):
        read_sidecar(engine)


def test_a_truncated_plan_and_another_plan_are_named(engine, record):
    write_sidecar(engine, record)
    data = engine.read_bytes()
    engine.write_bytes(data[:-10])
    with pytest.raises(ArtifactError, match=r"has 4086 bytes, not 4096: it is truncated") as caught:
        Runtime(engine)
    assert "cast-export --onnx cast.onnx --trt --flavor tensorrt --out cast.engine" in caught.value.remedy
    engine.write_bytes(data[::-1])
    with pytest.raises(ArtifactError, match="is damaged, or another one than its record describes"):
        check_plan(engine, record)


@pytest.mark.parametrize(
    "compatible, version, fits",
    [
        (False, "10.3.0", True),
        (False, "10.3.0.26", False),
        (False, "10.16.1.11", False),
        (True, "10.3.0", True),
        (True, "10.16.1.11", True),
        (True, "11.4.0", True),
        (True, "10.2.0", False),
        (True, "12.0.0", False),
    ],
)
def test_versions(engine, record, compatible, version, fits):
    record = dataclasses.replace(record, version_compatible=compatible)
    if fits:
        check_package(engine, record, installed(version))
        return
    with pytest.raises(ArtifactError, match=f"built by TensorRT 10.3.0.*\n  Found: TensorRT {version} in /somewhere"):
        check_package(engine, record, installed(version))


def test_a_plan_of_the_other_flavour(engine, record):
    with pytest.raises(ArtifactError, match=r"built by TensorRT 10.3.0.*\n  Found: TensorRT-RTX 1.7"):
        check_package(engine, record, installed("1.7.1", "rtx"))
    rtx = dataclasses.replace(record, flavor="rtx", version="1.7.1.116")
    with pytest.raises(ArtifactError, match=r"built by TensorRT-RTX 1.7.1.116 and needs that package"):
        check_package(engine, rtx, installed())
    with pytest.raises(ArtifactError, match="exactly that version") as caught:
        check_package(engine, rtx, installed("1.8.0", "rtx"))
    assert "pip install 'tensorrt_rtx==1.7.1.116'" in caught.value.remedy


def test_a_plan_of_the_other_flavour_is_refused_by_the_runtime(engine, record):
    write_sidecar(engine, record)  # built by `tensorrt`, which no test machine without a GPU has
    with pytest.raises((MissingDependencyError, ArtifactError), match=r"tensorrt|TensorRT"):
        Runtime(engine)


def test_gpus_and_systems(engine, record):
    check_device(engine, record, ORIN)
    with pytest.raises(ArtifactError, match=r"on Orin \(nvgpu\) for sm87.\n  Found: RTX 4090 \(sm89\)"):
        check_device(engine, record, Gpu(0, "RTX 4090", (8, 9)))
    with pytest.warns(RuntimeWarning, match="may be slower"):
        check_device(engine, record, Gpu(0, "Orin Nano", (8, 7)))
    with pytest.raises(ArtifactError, match="built for windows-x86_64"):
        check_device(engine, dataclasses.replace(record, platform="windows-x86_64"), ORIN)
    compatible = dataclasses.replace(record, hardware_compatible=True)
    check_device(engine, compatible, Gpu(0, "RTX 4090", (8, 9)))
    with pytest.raises(ArtifactError):
        check_device(engine, compatible, Gpu(0, "Turing", (7, 5)))
    portable = dataclasses.replace(record, flavor="rtx", targets=("sm86", "sm89"), gpu=None, platform="windows-x86_64")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_device(engine, portable, Gpu(0, "RTX 4090", (8, 9)))
    with pytest.raises(ArtifactError, match=r"built for sm86, sm89.\n  Found: NVIDIA H100"):
        check_device(engine, portable, Gpu(0, "NVIDIA H100 80GB HBM3", (9, 0)))


def test_version_numbers():
    assert version_tuple("10.14.1.48.post1") == (10, 14, 1, 48)
    assert version_tuple("11.0.0rc1") == (11, 0, 0)
    assert version_tuple("unknown") == ()
