"""What docs/runtime.md shows can be run."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner

from cast_sdk.runtime.commands import bench as cli_bench
from cast_sdk.runtime.commands import doctor as cli_doctor
from cast_sdk.runtime.commands import segment as cli_segment
from cast_sdk.runtime.result import Segmentation

PAGE = (Path(__file__).parents[3] / "docs" / "runtime.md").read_text()
COMMANDS = {"cast-segment": cli_segment.main, "cast-bench": cli_bench.main, "cast-doctor": cli_doctor.main}


@pytest.fixture
def prepared(tmp_path, monkeypatch, tiny_onnx, photo):
    """A folder with the files that the page names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cast_s.onnx").write_bytes(tiny_onnx.read_bytes())
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/one.jpg"):
        cv2.imwrite(name, photo)
    return tmp_path


def test_the_first_example(prepared):
    code = re.search(r"```python\n(.*?)```", PAGE, re.S).group(1)
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["seg"], Segmentation)
    assert cv2.imread("out.png").shape == (240, 320, 3)


@pytest.mark.parametrize("line", re.search(r"## Commands\n\n```sh\n(.*?)```", PAGE, re.S).group(1).splitlines())
def test_commands(prepared, line, monkeypatch):
    name, *arguments = shlex.split(line, comments=True)
    if "openvino" in line:
        pytest.importorskip("openvino", reason="the optional OpenVINO package is not installed")
    if name == "cast-segment":
        arguments += ["--model", "cast_s.onnx"]
    if name == "cast-bench":
        arguments += ["--frames", "2", "--streams", "1"]
    monkeypatch.setattr(sys, "argv", [name])
    result = CliRunner().invoke(COMMANDS[name], arguments)
    assert result.exit_code == 0, result.output
