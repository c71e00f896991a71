"""Nothing of a run is kept or sent behind the user's back."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

RUN = "import cast_sdk, sys; cast_sdk.Runtime(sys.argv[1]); print('done')"


def files_after(program: str, model: Path, home: Path, **environment: str) -> list[str]:
    """What a run leaves in a home of its own."""
    # Where CI is set, onnxruntime is silent by itself.
    removed = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI", "GITHUB_ACTIONS", "TF_BUILD")
    kept = {name: value for name, value in os.environ.items() if name not in removed}
    done = subprocess.run(
        [sys.executable, "-c", program, str(model)],
        env=kept | {"HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "done", done.stderr
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]


def test_onnxruntime_keeps_no_device_id_and_no_events(tiny_onnx, tmp_path):
    assert files_after(RUN, tiny_onnx, tmp_path) == []


def test_whoever_wants_it_may_have_it(tiny_onnx, tmp_path):
    """The control of the test above: this onnxruntime would leave files."""
    version = tuple(map(int, metadata.version("onnxruntime").split(".")[:2]))
    if version < (1, 29) or not sys.platform.startswith("linux"):
        pytest.skip("onnxruntime keeps nothing before 1.29 or on other systems than Linux")
    assert files_after(RUN, tiny_onnx, tmp_path, ORT_DISABLE_TELEMETRY="0")


def test_openvino_is_imported_without_its_telemetry(tiny_onnx, tmp_path):
    """It would start a thread that sends an event, and keep a file for the consent and the client's id."""
    pytest.importorskip("openvino")
    program = (
        "import sys, threading, cast_sdk; rt = cast_sdk.Runtime(sys.argv[1], backend='openvino')\n"
        "assert 'openvino_telemetry' not in sys.modules and threading.active_count() == 1; print('done')"
    )
    assert files_after(program, tiny_onnx, tmp_path) == []
