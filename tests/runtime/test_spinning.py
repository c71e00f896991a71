"""How idle threads of ONNX Runtime wait: which option is given where, and the class of the threads."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from cast_sdk.errors import ArtifactError
from cast_sdk.runtime import Runtime
from cast_sdk.runtime.backends.opening import open_backend
from cast_sdk.runtime.backends.spinning import BRIEFLY, knows_durations, yielding_threads


def classes_can_be_set() -> bool:
    """Tried in a thread, as it is its own class that changes; the sandbox of a container may forbid it."""
    if sys.platform != "linux":
        return False

    def attempt() -> None:
        with contextlib.suppress(OSError):
            for policy in (os.SCHED_BATCH, os.SCHED_OTHER):
                os.sched_setscheduler(0, policy, os.sched_param(0))
            possible.append(True)

    possible: list[bool] = []
    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return bool(possible)


linux = pytest.mark.skipif(not classes_can_be_set(), reason="this system lets no thread set its scheduling class")
KEYS = ("session.intra_op.allow_spinning", "session.intra_op.spin_duration_us")


@pytest.mark.parametrize(
    "version, known",
    [
        ("1.20.0", False),
        ("1.25.1", False),
        ("1.26.0", True),
        ("1.32.0", True),
        ("2.0.0", True),
        ("1.26.0.dev20260501", True),
        ("0.30", False),
        ("1", False),
        ("master", False),
        ("", False),
    ],
)
def test_versions_that_spin_for_a_time(version, known):
    assert knows_durations(version) is known


def entries(backend) -> tuple[str | None, ...]:
    options = backend._session.get_session_options()

    def entry(key: str) -> str | None:
        try:
            return options.get_session_config_entry(key)
        except RuntimeError:  # not given
            return None

    return tuple(entry(key) for key in KEYS)


@linux
@pytest.mark.parametrize(
    "version, options, expected",
    [
        ("1.26.0", {"threads": 2}, ("1", str(BRIEFLY))),
        ("1.26.0", {"threads": 2, "spinning": None}, ("1", str(BRIEFLY))),
        ("1.25.1", {"threads": 2}, ("0", None)),  # it would spin to the end of the run
        ("1.26.0", {"threads": 1}, ("0", None)),
        ("1.26.0", {"threads": 2, "spinning": True}, ("1", None)),
        ("1.26.0", {"threads": 2, "spinning": False}, ("0", None)),
    ],
)
def test_the_duration_is_given_where_it_is_known(tiny_onnx, monkeypatch, version, options, expected):
    monkeypatch.setattr(onnxruntime, "__version__", version)
    assert entries(open_backend(tiny_onnx, **options)) == expected


def own_threads() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


@linux
@pytest.mark.parametrize("spinning, policy", [(None, "SCHED_BATCH"), (True, "SCHED_OTHER"), (False, "SCHED_OTHER")])
def test_the_class_of_the_threads(tiny_onnx, monkeypatch, spinning, policy):
    monkeypatch.setattr(onnxruntime, "__version__", "1.26.0")

    def opened() -> tuple[list[int], int]:
        before = own_threads()
        backend = open_backend(tiny_onnx, threads=3, spinning=spinning)
        classes = []
        for thread in own_threads() - before:
            with contextlib.suppress(ProcessLookupError):  # one that has just ended
                classes.append(os.sched_getscheduler(thread))
        backend.close()
        return classes, os.sched_getscheduler(0)

    classes, own = in_a_thread_of_class(os.SCHED_OTHER, opened)
    assert classes.count(getattr(os, policy)) >= 2  # the third is the caller
    assert own == os.SCHED_OTHER


def in_a_thread_of_class(policy: int, action):
    """What `action` returns in a thread of this class; the tests' own thread keeps its class."""
    results = []

    def work() -> None:
        os.sched_setscheduler(0, policy, os.sched_param(0))
        results.append(action())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return results[0]


@linux
def test_the_class_comes_back_after_a_failure(tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(b"content")

    def fails() -> int:
        with pytest.raises(ArtifactError):
            open_backend(tmp_path / "damaged.onnx", threads=2)
        return os.sched_getscheduler(0)

    assert in_a_thread_of_class(os.SCHED_OTHER, fails) == os.SCHED_OTHER


@linux
@pytest.mark.parametrize("name", ["SCHED_BATCH", "SCHED_IDLE"])
def test_a_class_that_yields_already_is_kept(name):
    policy = getattr(os, name)

    def inside() -> tuple[bool, int, int]:
        with yielding_threads(True) as yields:
            during = os.sched_getscheduler(0)
        return yields, during, os.sched_getscheduler(0)

    assert in_a_thread_of_class(policy, inside) == (True, policy, policy)


@linux
def test_a_sandbox_that_forbids_it(tiny_onnx, monkeypatch):
    def forbidden(*arguments: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(onnxruntime, "__version__", "1.26.0")
    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    assert entries(open_backend(tiny_onnx, threads=2)) == ("0", None)


def test_another_system(tiny_onnx, monkeypatch):
    monkeypatch.setattr(onnxruntime, "__version__", "1.26.0")
    monkeypatch.setattr("cast_sdk.runtime.backends.spinning.sys", SimpleNamespace(platform="darwin"))
    assert entries(open_backend(tiny_onnx, threads=2)) == ("0", None)


def test_results_do_not_depend_on_it(tiny_onnx, photo):
    results = [Runtime(tiny_onnx, threads=2, spinning=spinning).segment(photo) for spinning in (None, True, False)]
    for other in results[1:]:
        assert np.array_equal(results[0].logits, other.logits)
        assert np.array_equal(results[0].labels(1), other.labels(1))


def test_a_backend_that_never_spins_takes_false(tiny_onnx):
    pytest.importorskip("openvino", reason="the optional OpenVINO package is not installed")
    assert open_backend(tiny_onnx, "openvino", spinning=False).device == "cpu"
