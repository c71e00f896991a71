"""What is known about the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from cast_sdk.system import processor


@pytest.mark.parametrize(
    "machine, text, saturates",
    [
        ("x86_64", "flags : fpu avx2 bmi2", True),
        ("x86_64", "flags : avx2 avx512f avx512bw", True),
        ("x86_64", "flags : avx2 avx_vnni", False),
        ("AMD64", "flags : avx512f avx512_vnni", False),
        ("aarch64", "Features : asimd asimddp", False),
    ],
)
def test_processors_whose_int8_saturates(tmp_path: Path, monkeypatch, machine: str, text: str, saturates: bool):
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    (tmp_path / "cpuinfo").write_text(text)
    assert processor.int8_saturates(tmp_path / "cpuinfo") is saturates


def test_an_unknown_processor_counts_as_one_that_saturates(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    assert processor.int8_saturates(tmp_path / "none")


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    "membership, files, cores",
    [
        pytest.param("0::/", {}, None, id="v2, no controller"),
        pytest.param("0::/", {"cpu.max": "max 100000\n"}, None, id="v2, no limit"),
        pytest.param("0::/", {"cpu.max": "150000 100000\n"}, 1.5, id="v2, a container's own root"),
        pytest.param(
            "0::/system.slice/cast.service",
            {"system.slice/cast.service/cpu.max": "50000 100000", "system.slice/cpu.max": "max 100000"},
            0.5,
            id="v2, CPUQuota of a unit",
        ),
        pytest.param(
            "0::/job/step/task",
            {
                "job/step/task/cpu.max": "max 100000",
                "job/step/cpu.max": "400000 100000",
                "job/cpu.max": "200000 100000",
            },
            2.0,
            id="v2, the tightest of the groups above",
        ),
        pytest.param("0::/docker/abc", {"cpu.max": "300000 100000"}, 3.0, id="v2, named as the host does"),
        pytest.param("0::/../other", {"cpu.max": "300000 100000"}, 3.0, id="v2, beside the namespace's root"),
        pytest.param(
            "7:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/",
            {"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            0.5,
            id="v1, a container",
        ),
        pytest.param(
            "1:cpu:/jobs/7",
            {
                "cpu/jobs/7/cpu.cfs_quota_us": "-1",
                "cpu/jobs/7/cpu.cfs_period_us": "100000",
                "cpu/jobs/cpu.cfs_quota_us": "250000",
                "cpu/jobs/cpu.cfs_period_us": "100000",
            },
            2.5,
            id="v1, the group above",
        ),
        pytest.param("3:cpuset:/\n2:cpuacct:/", {"cpuset/cpu.cfs_quota_us": "50000"}, None, id="v1, other controllers"),
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, membership: str, files: dict[str, str], cores: float | None):
    (tmp_path / "cgroup").write_text(membership + "\n")
    tree(tmp_path / "fs", files)
    assert processor.cpu_quota(tmp_path / "cgroup", tmp_path / "fs") == cores


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path):
    assert processor.cpu_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize("quota, cores", [(None, 4), (0.5, 1), (1.5, 1), (3.0, 3), (64.0, 4)])
def test_cores_are_whole_and_at_least_one(monkeypatch, quota: float | None, cores: int):
    monkeypatch.setattr(processor.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(processor, "cpu_quota", lambda: quota)
    assert processor.available_cores() == cores
