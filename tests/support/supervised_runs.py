"""Runs of the supervised program, in a process of their own or in this one, and what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from cast_sdk.training.engine.runlog import read_log

ROOT = Path(__file__).parents[2]


def start(recipe, data, out, *extra, processes=1):
    """The program in a process of its own, on one thread per process."""
    launcher = [sys.executable]
    if processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*launcher, "training/supervised.py", "--recipe", recipe, "--data", data, "--out", out, "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(part) for part in (*command, *extra)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def here(recipe, data, out, *extra):
    """The program in this process, where speed matters more than separation."""
    from click.testing import CliRunner

    from cast_sdk.training.supervised import main

    arguments = ["--recipe", recipe, "--data", data, "--out", out, "--device", "cpu", *extra]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def finish(process, status=0):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


def weights(out):
    return torch.load(out / "checkpoint.pth", weights_only=False)


def assert_same(a, b):
    for part in ("model", "model_ema"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][key], b[part][key]) for key in a[part])
    old, new = (json.dumps(_numbers(c["optimizer"]["state"])) for c in (a, b))
    assert old == new


def _numbers(state):
    return {str(key): {name: value.tolist() for name, value in entry.items()} for key, entry in state.items()}


def killed_in_the_second_epoch(recipe, data, out, *extra):
    process = start(recipe, data, out, *extra, "--log-every", 1, "--save-minutes", 0)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        log = out / "log.jsonl"
        if log.exists() and len(read_log(out, "step")) >= 9 and (out / "checkpoint.pth").exists():
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resume = weights(out)["resume"]
    assert resume["epoch"] == 1 and 0 < resume["step"] < 6
