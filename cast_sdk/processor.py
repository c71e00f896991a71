"""What this processor can do, and how much of it this process may use."""

from __future__ import annotations

import platform
from pathlib import Path

_WIDE_SUMS = ("avx512_vnni", "avx_vnni", "amx_int8")  # as Linux names them: INT8 products with sums of 32 bits


def int8_saturates(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor adds pairs of INT8 products in 16 bits: x86 without VNNI; unknown counts as without."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        text = cpuinfo.read_text()
    except OSError:
        return True
    return not any(name in text.split() for name in _WIDE_SUMS)
