"""A Runtime in other processes: forked, spawned, pickled, copied."""

from __future__ import annotations

import copy
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

import cast_sdk
from cast_sdk import bundled
from cast_sdk.errors import InputError

WAIT = """
for _ in range(600):
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        break
    time.sleep(0.1)
else:
    os.kill(child, 9)
    sys.exit("the child never ended")
"""

FORK = """
import os, sys, time, cast_sdk, numpy as np
what, path, backend = sys.argv[1:]
frame = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
rt = cast_sdk.Runtime(path, backend=backend)
before = rt.segment(frame)
child = os.fork()
if child == 0:
    if what == "run":
        try:
            after = rt.segment(frame)
        except cast_sdk.CastError as error:
            print(error)
        else:
            print("same", np.array_equal(before.labels(2), after.labels(2)))
    if what == "close":
        rt.close()
    sys.stdout.flush()
    sys.exit(0)
"""
FORK += (
    WAIT
    + """
rt.segment(frame)
sys.exit(status)
"""
)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system does not fork")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("what", ["exit", "close", "run"])
def test_a_forked_child(tiny_onnx, what: str, backend: str):
    if backend == "openvino":
        pytest.importorskip("openvino", reason="the optional OpenVINO package is not installed")
    model = bundled.path(bundled.WEIGHTS) if backend == "torch" else tiny_onnx
    done = subprocess.run(
        [sys.executable, "-c", FORK, what, str(model), backend], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    if what == "run":
        expected = "same True" if backend == "onnxruntime" else "opened before the fork of this process"
        assert expected in done.stdout


def test_a_runtime_is_pickled_as_its_file_and_options(tiny_onnx, photo):
    runtime = cast_sdk.Runtime(tiny_onnx, threads=1, fit="crop")
    for again in (pickle.loads(pickle.dumps(runtime)), copy.deepcopy(runtime)):
        assert again is not runtime and again.fit == "crop" and again.path == runtime.path
        assert np.array_equal(again.segment(photo).labels(2), runtime.segment(photo).labels(2))
    result = runtime.segment(photo)
    assert np.array_equal(pickle.loads(pickle.dumps(result)).labels(3), result.labels(3))


def test_a_runtime_of_an_open_backend_is_not(tiny_onnx):
    runtime = cast_sdk.Runtime(cast_sdk.Runtime(tiny_onnx).backend)
    with pytest.raises(InputError, match="make it from a file"):
        pickle.dumps(runtime)


def test_matrices_are_frames(tiny_onnx, photo):
    runtime = cast_sdk.Runtime(tiny_onnx)
    grey = np.ascontiguousarray(photo[..., 0])
    assert np.array_equal(runtime.segment(np.asmatrix(grey)).labels(2), runtime.segment(grey).labels(2))


def test_a_pickled_runtime_finds_its_file_from_another_folder(tiny_onnx, tmp_path, monkeypatch):
    shutil.copy(tiny_onnx, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(cast_sdk.Runtime("model.onnx"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    pickle.loads(data).close()


FORKED_STREAM = """
import os, sys, time, cast_sdk, numpy as np
what, path = sys.argv[1:]
frames = (np.full((40, 50, 3), n, np.uint8) for n in range(60))
stream = cast_sdk.Runtime(path).stream(frames)
next(stream)
child = os.fork()
if child == 0:
    if what == "next":
        try:
            next(stream)
        except cast_sdk.CastError as error:
            print(error, flush=True)
    if what == "close":
        stream.close()
    sys.exit(0)
"""
FORKED_STREAM += (
    WAIT
    + """
assert sum(1 for _ in stream) == 59
sys.exit(status)
"""
)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system does not fork")
@pytest.mark.parametrize("what", ["exit", "close", "next"])
def test_a_stream_in_a_forked_child(tiny_onnx, what: str):
    done = subprocess.run(
        [sys.executable, "-c", FORKED_STREAM, what, str(tiny_onnx)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert ("begun before the fork" in done.stdout) == (what == "next")


@pytest.mark.parametrize("make", ["to_sparse", "meta"])
def test_tensors_without_plain_values_are_refused(tiny_onnx, make: str):
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(40, 50, 3)
    tensor = tensor.to("meta") if make == "meta" else tensor.to_sparse()
    with pytest.raises(InputError, match=r"no values|sparse layout"):
        cast_sdk.Runtime(tiny_onnx).segment(tensor)
