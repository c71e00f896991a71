"""cast-bench: what it reports, not how fast this machine is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from cast_sdk.errors import InputError
from cast_sdk.runtime.commands.bench import main
from cast_sdk.runtime.commands.benchmark import STAGES, Candidate, Report, ratios


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cast_sdk.runtime.commands.bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_one_model(tiny_onnx):
    done = bench(tiny_onnx, "--frames", 4, "--streams", 1, "--json", "--size", "160x120")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    (result,) = data["results"]
    assert tuple(result["stages_ms"]) == STAGES and data["ratios"] is None
    for row in result["stages_ms"].values():
        assert 0 < row["min"] <= row["median"] <= row["p90"]
    assert result["load_ms"] > 0 and result["single_fps"] > 0 and result["stream_fps"] > 0
    assert data["frames"] == {"count": 4, "size": [120, 160], "source": "scene"}
    assert data["environment"]["packages"]["onnxruntime"] and data["peak_memory_mb"] > 20


def test_two_models_in_turn(tiny_onnx, dense_onnx):
    done = bench("--compare", tiny_onnx, f"{dense_onnx}@onnxruntime", "--frames", 3, "--streams", 1, "--size", "96x96")
    assert done.returncode == 0, done.stderr
    assert "dense.onnx on onnxruntime is times as fast as tiny.onnx" in done.stdout and "stream" in done.stdout


def test_candidates():
    assert Candidate.parse("a.onnx") == Candidate("a.onnx")
    assert Candidate.parse("me@home/a.onnx") == Candidate("me@home/a.onnx")
    assert Candidate.parse("a.onnx@openvino") == Candidate("a.onnx", "openvino")
    assert Candidate.parse("a.onnx@openvino:bf16") == Candidate("a.onnx", "openvino", {"precision": "bf16"})
    assert Candidate.parse("a.onnx@openvino:bf16").label == "a.onnx on openvino (bf16)"
    with pytest.raises(InputError, match="openvino and torch can"):
        Candidate.parse("a.onnx@onnxruntime:fp16")


def test_ratios_say_how_many_times_as_fast_the_second_is():
    slow = Report("a", "", 0, 0, {stage: [20.0, 40.0, 30.0] for stage in STAGES}, [10.0])
    fast = Report("b", "", 0, 0, {stage: [10.0, 10.0, 10.0] for stage in STAGES}, [25.0])
    table = ratios(slow, fast)
    assert table["model"] == {"median": 3.0, "min": 2.0, "pairs": 3.0}
    assert table["stream"] == {"median": 2.5, "min": 2.5, "pairs": 2.5}


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["missing.onnx"], 1, "no file"),
        (["--compare", "a.onnx", "b.onnx", "c.onnx"], 2, "not both"),
        (["x.onnx", "--size", "wide"], 1, "WIDTHxHEIGHT"),
        (["x.onnx", "--images", "nowhere"], 1, "no image nowhere"),
    ],
)
def test_what_cannot_be_timed(arguments, code, words):
    done = bench(*arguments)
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "size", ["0x5", "5x0", "\u0663x5", "x", "5x", "\u00b2x5", "5x5x5", "9" * 5000 + "x3", "-1x5", ""]
)
def test_a_size_is_two_whole_numbers(tiny_onnx, size):
    done = CliRunner().invoke(main, [str(tiny_onnx), f"--size={size}", "--frames", "1", "--streams", "0"])
    assert done.exit_code == 1 and "is not WIDTHxHEIGHT" in done.output
