"""cast-doctor finds the troubles of real installations."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
import types

import pytest

from cast_sdk.errors import MissingDependencyError
from cast_sdk.runtime.commands import installation as doctor
from cast_sdk.runtime.engine import cuda as cuda_memory
from cast_sdk.runtime.engine.cuda import Gpu


def test_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "cast_sdk.runtime.commands.doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert {"cast-sdk", "Python", "OpenCV", "superpixels", "ONNX Runtime", "TensorRT"} <= set(findings)
    problems = [name for name, finding in findings.items() if finding["status"] == "problem"]
    assert done.returncode == (1 if problems else 0)
    for finding in findings.values():
        assert finding["found"] and (finding["status"] == "ok") == (finding["remedy"] == "")
    assert findings["ONNX Runtime"]["status"] == "ok" and "CPU" in findings["ONNX Runtime"]["found"]


def test_extras(monkeypatch):
    lacking = {"fsspec": None, "starlette": "0.1", "uvicorn": "0.2"}
    monkeypatch.setattr(
        doctor, "unmet", lambda wanted: [(one, lacking[one.name]) for one in wanted if one.name in lacking]
    )
    found = {finding.name: finding for finding in doctor.check_extras()}
    statuses = {name: finding.status for name, finding in found.items()}
    assert statuses == {"bulk": "info", "ray": "info", "serve": "warning", "hub": "ok"}
    assert found["bulk"].found == "not installed: fsspec (for cast-bulk)" and found["bulk"].remedy.startswith("pip")
    assert "starlette 0.1 is older than 0.40.0; uvicorn 0.2" in found["serve"].found and not found["hub"].remedy


def test_two_opencv_wheels():
    (finding,) = doctor.check_opencv_wheels({"opencv-python": "5.0", "opencv-contrib-python": "4.8"})
    assert finding.status == "warning"
    # The wheel that somebody chose stays; the one that pip brought goes.
    keep = "pip uninstall -y opencv-python && pip install --force-reinstall --no-deps opencv-contrib-python==4.8"
    assert finding.remedy.startswith(keep)
    assert not list(doctor.check_opencv_wheels({"opencv-python": "5.0"}))


def break_import(monkeypatch, name, message):
    original = builtins.__import__

    def failing(module, *arguments, **options):
        if module == name:
            raise ImportError(message)
        return original(module, *arguments, **options)

    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(builtins, "__import__", failing)


@pytest.mark.parametrize(
    "message, remedy",
    [
        ("libGL.so.1: cannot open shared object file", "sudo apt install libgl1"),
        ("libxcb.so.1: cannot open shared object file", "sudo apt install libxcb1"),
        ("No module named 'cv2'", "pip install opencv-python"),
    ],
)
def test_opencv_that_does_not_load(monkeypatch, message, remedy):
    break_import(monkeypatch, "cv2", message)
    (finding,) = doctor.check_opencv()
    assert finding.status == "problem" and message in finding.found and finding.remedy.endswith(remedy)


def test_nothing_that_can_run_a_network(monkeypatch):
    break_import(monkeypatch, "onnxruntime", "No module named 'onnxruntime'")
    monkeypatch.setattr(doctor, "installed", lambda names: {})
    monkeypatch.setattr(doctor, "find_tensorrt", lambda: None)
    finding = next(f for f in doctor.check_engines({}) if f.name == "ONNX Runtime")
    assert finding.status == "problem" and finding.remedy == "pip install onnxruntime"
    monkeypatch.setattr(doctor, "find_tensorrt", lambda: sys)
    finding = next(f for f in doctor.check_engines({}) if f.name == "ONNX Runtime")
    assert finding.status == "info"


def test_two_onnxruntime_wheels():
    findings = list(doctor.check_engines({"onnxruntime": "1.2", "onnxruntime-gpu": "1.2"}))
    assert findings[0].status == "warning" and "pip uninstall -y onnxruntime onnxruntime-gpu" in findings[0].remedy


def test_tensorrt_outside_the_environment(monkeypatch, tmp_path):
    (tmp_path / "python3.10" / "dist-packages" / "tensorrt").mkdir(parents=True)
    outside = doctor.system_tensorrt(tmp_path)
    assert outside is not None and doctor.system_tensorrt(tmp_path / "python3.10") is None
    monkeypatch.setattr(doctor, "find_tensorrt", lambda: None)
    monkeypatch.setattr(doctor, "system_tensorrt", lambda: outside)
    (finding,) = doctor.check_tensorrt()
    assert finding.status == "warning" and "--system-site-packages" in finding.remedy
    monkeypatch.setattr(doctor, "system_tensorrt", lambda: None)
    monkeypatch.setattr(doctor, "tegra_release", lambda: "# R36")
    (finding,) = doctor.check_tensorrt()
    assert finding.status == "info" and "apt install tensorrt" in finding.remedy


@pytest.mark.parametrize(("version", "tensorrt", "names"), [(13000, "11.4", 1), (12060, "11.4", 2), (12060, "10.3", 1)])
def test_cuda_is_called_where_there_is_a_driver(tmp_path, monkeypatch, version, tensorrt, names):
    class Stub:
        def versions(self):
            return version, 12060

        def gpu(self):
            return Gpu(0, "Stand-in RTX", (8, 6))

    monkeypatch.setattr(cuda_memory, "open_cuda", Stub)
    monkeypatch.setattr(doctor, "find_tensorrt", lambda: types.SimpleNamespace(__version__=tensorrt))
    first, *rest = doctor.check_cuda(tmp_path)
    driver = f"{version // 1000}.{version % 1000 // 10}"
    assert first.status == "ok" and first.found == f"Stand-in RTX (sm86), driver for {driver} and runtime 12.6"
    assert len(rest) == names - 1 and all("tensorrt-cu12<11" in finding.remedy for finding in rest)
    assert list(doctor.check_cuda(tmp_path / "none")) == []


def test_cuda_that_does_not_answer_is_a_warning_with_its_words(tmp_path, monkeypatch):
    def fails():
        raise MissingDependencyError("There is no usable NVIDIA GPU.", found="cudaError (35)", remedy="upgrade")

    monkeypatch.setattr(cuda_memory, "open_cuda", fails)
    (finding,) = doctor.check_cuda(tmp_path)
    assert finding.status == "warning" and "cudaError (35)" in finding.found
