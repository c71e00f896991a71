"""benchmarks/gpu_check.py from beginning to end on stand-ins: that it runs, compares, and fails when it should."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_tensorrt import install

import cast_sdk
from cast_sdk.models import save_native
from cast_sdk.runtime.engine.cuda import Gpu

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
    assert text.startswith("## Stand-in RTX\n") and text.count("| ok |") == 5 and "runs/s" in text


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


def test_a_dry_run_of_every_part(tmp_path):
    """Small sizes on the CPU, so that the program cannot rot."""
    markdown, plain = tmp_path / "gpu.md", tmp_path / "gpu.json"
    words = [sys.executable, SCRIPT, "--dry-run", "--minutes", "60", "--out", markdown, "--json", plain]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    data = json.loads(plain.read_text())
    assert not data["failures"] and all(row["passed"] for row in data["checks"])
    checked = " ".join(row["what"] for row in data["checks"])
    for what in (
        "bytes to the card",
        "golden tiny_cast",
        "sampler's kernel",
        "static fp32",
        "memory over",
        "DeiT step fp32",
        "MoCo step fp32",
        "DeiT loader",
        "MoCo loader",
        "overflow lowers the scale",
    ):
        assert what in checked
    assert {row["run_by"] for row in data["latencies"]} >= {"eager fp32", "static fp32", "DeiT step fp32, batch 4"}
    text = markdown.read_text()
    assert done.stdout == text + "\n" and text.startswith("## Dry run on the CPU, torch ")
    assert "- engines: a dry run has no GPU" in text


def test_a_part_that_stops_is_a_failure_and_the_others_go_on(gpu_check, monkeypatch, capsys):
    def parts(arguments, settings, folder):
        return {
            "bad": lambda found: [][0],
            "good": lambda found: found.check("good", True, "fine"),
            "absent": lambda found: found.leave_out("absent", "no such card"),
        }

    monkeypatch.setattr(gpu_check, "torch_parts", parts)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--dry-run"])
    with pytest.raises(SystemExit, match=r"1 checks failed: bad: stopped by IndexError"):
        gpu_check.main()
    assert "| good | fine | ok |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--dry-run", "--parts", "absent"])
    with pytest.raises(SystemExit, match="Nothing was checked"):
        gpu_check.main()
    assert "- absent: no such card" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--dry-run", "--minutes", "-1", "--parts", "good"])
    with pytest.raises(SystemExit, match="Nothing was checked"):
        gpu_check.main()
    assert "- good: -60 seconds were over" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--dry-run", "--parts", "latencies"])
    with pytest.raises(SystemExit, match="There is no part latencies; choose from bad, good, absent"):
        gpu_check.main()


def test_rtx_is_left_out_on_a_card_that_it_does_not_know(gpu_check, monkeypatch):
    hopper = Gpu(0, "H100", (9, 0))
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: hopper)
    known = types.SimpleNamespace(compute_capabilities=lambda: ("sm86", "sm120"))
    monkeypatch.setattr(gpu_check, "load_tensorrt", lambda flavor: known)
    found = gpu_check.Findings()
    assert not gpu_check.builds_for_this_card(found, "cast_tiny fp32 rtx", "rtx")
    assert found.left_out == ["cast_tiny fp32 rtx: TensorRT-RTX does not know compute capability 9.0 (H100)"]
    assert gpu_check.builds_for_this_card(found, "x", "tensorrt")
    hopper = Gpu(0, "RTX 4090", (8, 6))
    assert gpu_check.builds_for_this_card(found, "x", "rtx")


def test_without_a_gpu_it_says_so(gpu_check):
    if gpu_check.installed_flavors() and torch.cuda.is_available():
        pytest.skip("this machine has a GPU; what is tested is its absence")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--models", "cast_tiny"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1 and done.stderr.startswith("error: There is no usable NVIDIA GPU"), done.stderr
