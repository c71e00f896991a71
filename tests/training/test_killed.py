"""kill -9 again and again while a published recipe trains: the end is that of an undisturbed run, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cast_sdk.training.engine.runlog import read_log

ROOT = Path(__file__).parents[2]
KILLS = 20
# Schedules that a clock ends are never the same twice, so the run ends by steps.
SETTINGS = ("schedule.steps=60", "train.batch=16")


def command(data: Path, out: Path) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    program = [sys.executable, "training/supervised.py", "--recipe", "tiny_taxonomy", "--device", "cpu"]
    return [*program, "--data", str(data), "--out", str(out), "--save-minutes", "0", "--log-every", "1", *settings]


def start(data: Path, out: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(data, out), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def few(data: Path, root: Path, train: int = 640, val: int = 32) -> Path:
    """A part of a folder of shards that still has every class."""
    import tarfile

    for name, count in (("train-00.tar", train), ("val-00.tar", val)):
        with tarfile.open(data / name) as source, tarfile.open(root / name, "w") as target:
            for number, member in enumerate(source):
                if number < 2 * count:
                    target.addfile(member, source.extractfile(member))
    (root / "classes.txt").write_bytes((data / "classes.txt").read_bytes())
    return root


def steps(out: Path) -> int:
    return len(read_log(out, "step")) if (out / "log.jsonl").exists() else 0


@pytest.mark.full
def test_twenty_kills_change_nothing(data_dir, tmp_path):
    (tmp_path / "data").mkdir()
    data = few(data_dir / "tiny_imagenet64", tmp_path / "data")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(data, whole)
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, output
    rng = random.Random(0)
    kills = 0
    while kills < KILLS:
        process = start(data, broken)
        before, wanted = steps(broken), rng.randint(1, 3)
        while process.poll() is None and steps(broken) < before + wanted:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))  # somewhere in a step or in the writing of a checkpoint
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        kills += 1
    process = start(data, broken)
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0 and "resumed at epoch" in output, output
    ours, theirs = (torch.load(out / "checkpoint.pth", weights_only=False) for out in (broken, whole))
    assert ours["resume"]["total"] == theirs["resume"]["total"] == 60
    assert ours["model"].keys() == theirs["model"].keys()
    assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in ours["model"])
    assert _same(ours["optimizer"], theirs["optimizer"])
    assert sorted(path.name for path in broken.iterdir()) == sorted(path.name for path in whole.iterdir())


def _same(a: Any, b: Any) -> bool:
    """Whether nested dictionaries and lists hold the same numbers, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
