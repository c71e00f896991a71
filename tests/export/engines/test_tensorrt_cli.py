"""cast-export --trt, as users type it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fake_tensorrt import install

import cast_sdk
import cast_sdk.runtime.engine.build as engine_build
from cast_sdk.export.cli import main
from cast_sdk.models import save_official
from cast_sdk.runtime.engine import cuda as cuda_memory
from cast_sdk.runtime.engine.record import read_sidecar


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    options = {"embed_dim": 48, "depths": (1, 1, 1, 1), "num_heads": 3, "clusters": (16, 8, 4, 2)}
    path = tmp_path_factory.mktemp("checkpoint") / "cast_s.pth"
    save_official(cast_sdk.create_model("cast_tiny", num_classes=10, **options).eval(), path, kind="deit")
    return path


@pytest.fixture
def folder(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "cast_s.pth").write_bytes(checkpoint.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_promised_command(folder):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx")
    command = [sys.executable, "-m", "cast_sdk.export.cli", "--ckpt", "cast_s.pth", "--trt", "--flavor", "rtx"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert names(folder) == ["cast_s.engine", "cast_s.engine.json", "cast_s.onnx", "cast_s.pth"]
    record = read_sidecar("cast_s.engine")
    assert record.precision == "fp32" and record.info.verification["passed"] and record.info.checkpoint_sha256
    assert "built by TensorRT-RTX" in done.stderr and "weights read back" in done.stderr
    if cuda_memory.find_gpu() is None:
        assert "NOT RUN     this machine has no NVIDIA GPU" in done.stderr
    shown = CliRunner().invoke(main, ["inspect", "cast_s.engine"])
    assert shown.exit_code == 0 and record.plan_sha256 in shown.output


@pytest.mark.parametrize("occupied", ["cast_s.onnx", "cast_s.engine"])
def test_a_foreign_file_is_not_replaced(folder, monkeypatch, occupied):
    install(monkeypatch, "rtx 1.7")
    (folder / occupied).write_text("hedgehog")
    done = CliRunner().invoke(main, ["--ckpt", "cast_s.pth", "--trt", "--flavor", "rtx", "--no-verify"])
    assert done.exit_code == 1 and "written by this package" in done.output and "choose another --out" in done.output
    assert names(folder) == sorted(["cast_s.pth", occupied])
    assert (folder / occupied).read_text() == "hedgehog"


@pytest.mark.parametrize("installed", [["tensorrt 10.3"], []], ids=["installed", "not installed"])
def test_tensorrt_without_a_gpu_leaves_the_graph_and_names_the_command(folder, monkeypatch, installed):
    install(monkeypatch, *installed)
    monkeypatch.setattr(cuda_memory, "cudart_libraries", lambda: iter([]))
    monkeypatch.setattr(engine_build, "find_gpu", lambda _=0: None)
    words = ["--ckpt", "cast_s.pth", "--trt", "--flavor", "tensorrt", "--workspace", "512", "--no-verify"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert "cast_s.onnx is made for the target device" in done.output
    assert "run there: cast-export --onnx cast_s.onnx --trt --flavor tensorrt --out cast_s.engine" in done.output
    assert "--workspace 512" in done.output
    assert names(folder) == ["cast_s.onnx", "cast_s.pth"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--trt", "--flavor", "rtx", "--target", "sm87"], "cannot build for sm87"),
        (["--trt", "--flavor", "rtx", "--version-compatible"], "no --version-compatible"),
        (["--trt", "--flavor", "tensorrt", "--target", "sm86"], "only for the GPU in this machine"),
        (["--trt", "--flavor", "rtx", "--target", ","], "No target is named"),
        (["--torch-trt", "--trt"], "--torch-trt and --trt were given together"),
    ],
)
def test_what_cannot_be_built_is_said_before_the_export(folder, monkeypatch, words, message):
    install(monkeypatch, "rtx 1.7")
    monkeypatch.setattr(cuda_memory, "cudart_libraries", lambda: iter([]))
    done = CliRunner().invoke(main, ["--ckpt", "cast_s.pth", *words])
    assert done.exit_code == 1 and message in done.output, done.output
    assert names(folder) == ["cast_s.pth"]


def test_a_missing_package_on_a_machine_with_a_gpu_is_said_before_the_export(folder, monkeypatch):
    install(monkeypatch, "rtx 1.7")
    done = CliRunner().invoke(main, ["--ckpt", "cast_s.pth", "--trt", "--flavor", "tensorrt"])
    assert done.exit_code == 1 and "The package tensorrt cannot be imported" in done.output
    assert names(folder) == ["cast_s.pth"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU; what is tested is its absence")
def test_torch_trt_is_refused_with_its_reason(folder):
    done = CliRunner().invoke(main, ["--ckpt", "cast_s.pth", "--torch-trt"])
    assert done.exit_code == 1 and "no GPU for Torch-TensorRT" in done.output
    assert names(folder) == ["cast_s.pth"]
