"""The command that a message prints builds the same engine: it is read back by cast-export itself."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cast_sdk.artifact import ExportInfo
from cast_sdk.export.cli import main
from cast_sdk.export.engines import options as engine_options
from cast_sdk.runtime.engine.record import EngineInfo
from cast_sdk.runtime.engine.request import BuildRequest
from cast_sdk.spec import ModelSpec


@pytest.fixture
def read_back(monkeypatch):
    """The request that cast-export makes of a command."""
    made = []
    monkeypatch.setattr(engine_options, "check_before_export", lambda request, say: None)
    monkeypatch.setattr(engine_options, "build_and_say", lambda request, say, **_: made.append(request))

    def read(command: str) -> BuildRequest:
        program, *words = shlex.split(command)
        done = CliRunner().invoke(main, words)
        assert program == "cast-export" and done.exit_code == 0, done.output
        return made.pop()

    return read


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"flavor": "rtx", "targets": ("sm86", "sm120"), "precision": "fp16"},
        {"flavor": "tensorrt", "batch": 4, "workspace_mb": 512, "timing_cache": Path("times.cache")},
        {
            "flavor": "tensorrt",
            "version_compatible": True,
            "hardware_compatible": True,
            "precision": "int8",
            "batch": 1,
        },
    ],
)
def test_a_request_survives_its_command(read_back, asked):
    request = BuildRequest(Path("a graph.onnx"), Path("cast.plan"), **asked)
    assert read_back(request.command()) == request


@pytest.mark.parametrize(
    "built",
    [
        {"flavor": "rtx", "targets": ("sm86", "sm89"), "gpu": None},
        {"version_compatible": True, "hardware_compatible": True, "build": {"seconds": 1.0, "workspace_mb": 700}},
    ],
)
@pytest.mark.parametrize("batch", [1, 8])
def test_a_record_names_the_command_that_gave_its_engine(read_back, built, batch):
    info = ExportInfo("fp16", batch, 224, 224, 196, ("embedding",))
    known = {"flavor": "tensorrt", "targets": ("sm87",), "gpu": "Orin", "build": {"workspace_mb": None}, **built}
    record = EngineInfo(
        spec=ModelSpec("m", "vit", 8, (1,), 1, (), 0, 224, 28),
        info=info,
        version="10.3.0",
        platform="linux-aarch64",
        plan_sha256="",
        plan_bytes=1,
        onnx_sha256="ab" * 32,
        onnx_name="cast.onnx",
        **known,
    )
    request = record.request("folder/cast.engine")
    command, note = record.rebuild("folder/cast.engine").split("  ", 1)
    assert read_back(command) == dataclasses.replace(request, engine=Path("cast.engine"))
    assert note == "(cast.onnx has SHA-256 abababababab...)"
    assert request.targets == (record.targets if record.flavor == "rtx" else ("current",))
    assert (request.batch or 1) == batch and request.workspace_mb == record.build["workspace_mb"]
    assert (request.version_compatible, request.hardware_compatible) == (record.version_compatible,) * 2
    assert "--target" not in record.rebuild("cast.engine", targets=("current",))


def test_an_engine_of_any_batch_is_refused(tmp_path):
    done = CliRunner().invoke(main, ["--onnx", "x.onnx", "--trt", "--out", str(tmp_path / "x.engine"), "--batch", "0"])
    assert done.exit_code == 1 and "cannot have a batch of 0" in done.output
