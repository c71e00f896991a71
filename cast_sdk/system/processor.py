"""What this processor can do, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_WIDE_SUMS = ("avx512_vnni", "avx_vnni", "amx_int8")  # as Linux names them: INT8 products with sums of 32 bits
_BFLOAT16 = ("avx512_bf16", "amx_bf16")
_CPUINFO = Path("/proc/cpuinfo")


def int8_saturates(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether this processor adds pairs of INT8 products in 16 bits: x86 without VNNI; unknown counts as without."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        text = cpuinfo.read_text()
    except OSError:
        return True
    return not any(name in text.split() for name in _WIDE_SUMS)


def bfloat16_units(cpuinfo: Path = _CPUINFO) -> list[str]:
    """The bfloat16 instructions of this processor, as Linux names them on x86; empty where none are known."""
    try:
        words = set(cpuinfo.read_text().split())
    except OSError:
        return []
    return [name for name in _BFLOAT16 if name in words]


def processor_name(cpuinfo: Path = _CPUINFO) -> str:
    """What the system calls this processor; "unknown" where it does not say."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "hardware")))
    return next(names, None) or platform.processor() or "unknown"


def available_cores() -> int:
    """Cores that this process may use: its affinity and the CPU quota of its control groups; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota(membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores by the tightest CPU quota of the control groups that hold this process; None without a quota.

    A container, a systemd unit (CPUQuota=) or a batch job may set one, and so may every group above it. A container
    without a namespace of its own names its group as the host does but mounts it as the root, so groups that are not
    there are passed over on the way up.

    Args:
        membership: the groups of this process, a line each: `ID:CONTROLLERS:/PATH`. Version 2 names no controllers.
        mount: folder of the mounted hierarchies: version 2 itself, or a folder for each controller of version 1.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None  # no control groups: another system, or /proc is hidden
    quotas = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            hierarchies, read = {mount}, _quota_v2
        elif "cpu" in controllers.split(","):
            hierarchies, read = {mount / controllers, mount / "cpu"}, _quota_v1
        else:
            continue
        parts = [part for part in group.split("/") if part not in ("", "..")]
        folders = [hierarchy.joinpath(*parts[:depth]) for hierarchy in hierarchies for depth in range(len(parts) + 1)]
        quotas += [quota for folder in folders if (quota := read(folder)) is not None]
    return min(quotas, default=None)


def _quota_v2(group: Path) -> float | None:
    """`cpu.max` of a group: "QUOTA PERIOD" in microseconds, or "max PERIOD"."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None  # the root has no such file, and a group without the controller neither


def _quota_v1(group: Path) -> float | None:
    """`cpu.cfs_quota_us` of a group over its period; -1 is no quota."""
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return quota / int((group / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError):
        return None
