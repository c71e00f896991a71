"""benchmarks/gpu_check.py from beginning to end on stand-ins: that it runs, compares, and fails when it should."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_tensorrt import install

import cast_sdk
from cast_sdk.models import save_native

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


@pytest.fixture(scope="module")
def gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_check"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    options = {"embed_dim": 48, "depths": (1, 1, 1, 1), "num_heads": 3, "clusters": (16, 8, 4, 2)}
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_native(cast_sdk.create_model("cast_tiny", num_classes=10, **options).eval(), path)
    return path


def test_the_whole_program(gpu_check, checkpoint, monkeypatch):
    install(monkeypatch, "tensorrt 10.13")
    monkeypatch.setattr(torch, "compile", lambda model: model)
    words = ["--ckpt", str(checkpoint), "--precisions", "fp32", "--frames", "20", "--rounds", "3"]
    found = gpu_check.run(gpu_check.parse(words), device="cpu")
    assert not found.failures and len(found.checks) == 5
    names = {name for _, name, values in found.latencies if len(values) == 3}
    assert names == {
        "torch eager",
        "torch.compile",
        "TensorRT 10.13.3.9 fp32",
        "TensorRT 10.13.3.9 fp32, no CUDA graph",
    }
    assert found.left_out == ["small fp32 rtx: the package is not installed"]
    text = gpu_check.report(found, "Stand-in RTX")
    assert text.startswith("## Stand-in RTX\n") and text.count("| ok |") == 5 and "frames/s" in text


def test_a_difference_is_a_failure(gpu_check):
    class Constant:
        def __init__(self, value):
            self.value = value

        def run(self, image, superpixels):
            return {"logits": np.full((1, 4), self.value, np.float32)}

    inputs = gpu_check.Inputs(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.int32), (Path("a"), Path("b")))
    found = gpu_check.Findings()
    gpu_check.agreement(found, "x", "fp32", Constant(1.0), Constant(1.0), inputs, 1)
    assert not found.failures
    gpu_check.agreement(found, "y", "fp32", Constant(1.0), Constant(2.0), inputs, 1)
    assert len(found.failures) == 1 and "FAILED" in found.checks[-1]


def test_without_a_gpu_it_says_so(gpu_check):
    if gpu_check.installed_flavors() and torch.cuda.is_available():
        pytest.skip("this machine has a GPU; what is tested is its absence")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--models", "cast_tiny"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1 and done.stderr.startswith("error: There is no usable NVIDIA GPU"), done.stderr
