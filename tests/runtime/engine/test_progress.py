"""Ctrl-C during a build: noted, whatever code it lands in, and raised when the builder has stopped."""

import os
import signal
import types

import pytest

from cast_sdk.runtime.engine.api import is_jetson
from cast_sdk.runtime.engine.progress import BuildProgress

TRT = types.SimpleNamespace(name="TensorRT", module=types.SimpleNamespace(IProgressMonitor=object))


def test_an_interrupt_stops_the_build_at_its_next_step_and_is_raised_after_it():
    before = signal.getsignal(signal.SIGINT)
    with BuildProgress(TRT, enabled=False) as progress:
        progress.monitor.phase_start("build", None, 2)
        assert progress.monitor.step_complete("build", 0)
        os.kill(os.getpid(), signal.SIGINT)  # no KeyboardInterrupt here, where TensorRT would swallow it
        assert not progress.monitor.step_complete("build", 1)
        progress.monitor.phase_finish("build")
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        progress.raise_if_interrupted()


def test_the_handler_is_put_back_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), BuildProgress(TRT, enabled=False):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("kernel", "jetson"), [("5.15.148-tegra", True), ("6.1.0-18-amd64", False)])
def test_a_container_on_a_jetson_is_one(tmp_path, monkeypatch, kernel, jetson):
    monkeypatch.setattr("platform.release", lambda: kernel)
    assert is_jetson(tmp_path / "nv_tegra_release") is jetson
    (tmp_path / "nv_tegra_release").write_text("# R36")
    assert is_jetson(tmp_path / "nv_tegra_release")
