"""A run looks nothing up and connects nowhere: seen from outside, by the system calls that it makes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from cast_sdk import bundled

# Sockets of the machine itself (AF_UNIX, AF_NETLINK) are no network.
_OUTSIDE = re.compile(r"\bAF_INET6?\b")
# What a resolver reads before it asks.
_RESOLVER = re.compile(r'"/etc/(resolv\.conf|hosts|host\.conf)"|libnss_dns|libresolv')

RUNTIME = "import cast_sdk; rt = cast_sdk.Runtime(); print(rt.segment(cast_sdk.bundled.photos()[0])); rt.close()"
CONTROL = "import socket\ntry: socket.getaddrinfo('telemetry.example', 443)\nexcept OSError: print('done')"
DIRECT = "import socket\nend = socket.socket()\ntry: end.connect(('192.0.2.1', 443))\nexcept OSError: print('done')"


@cache
def watch() -> list[str]:
    """The command that runs another one without a network and writes its system calls to a file; skips without it."""
    tools = shutil.which("strace"), shutil.which("unshare")
    if None in tools:
        pytest.skip("needs strace and unshare (apt-get install strace util-linux)")
    command = ["unshare", "--net", "--map-root-user", "strace", "-f", "-qq", "-e", "trace=%network,openat,connect"]
    for attempt in (command, [part for part in command if part != "--map-root-user"]):
        if subprocess.run([*attempt, "-o", "/dev/null", "true"], capture_output=True, timeout=60).returncode == 0:
            return attempt
    pytest.skip("network namespaces or strace are forbidden here")


def calls(command: list[str], folder: Path) -> str:
    """The system calls of a command about sockets, and the files that it opens."""
    log = folder / "calls"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    done = subprocess.run(
        [*watch(), "-o", str(log), *command], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).strip(), "the command does nothing"
    return log.read_text(errors="replace")


def asked(trace: str) -> list[str]:
    return [line for line in trace.splitlines() if _OUTSIDE.search(line) or _RESOLVER.search(line)]


@pytest.mark.parametrize("program", [CONTROL, DIRECT], ids=["look-up", "connection"])
def test_the_watch_sees_what_it_looks_for(program, tmp_path):
    """The control: without it the tests below could not fail."""
    assert asked(calls([sys.executable, "-c", program], tmp_path))


def test_the_runtime_asks_nobody(tmp_path):
    assert asked(calls([sys.executable, "-c", RUNTIME], tmp_path)) == []


def test_cast_segment_asks_nobody(tmp_path):
    command = [sys.executable, "-m", "cast_sdk.runtime.commands.segment", str(bundled.photos()[0])]
    assert asked(calls([*command, "--out", str(tmp_path / "out"), "--json"], tmp_path)) == []
    assert list((tmp_path / "out").iterdir())


def test_cast_export_asks_nobody(tmp_path):
    command = [sys.executable, "-m", "cast_sdk.export.cli", "--ckpt", str(bundled.path(bundled.WEIGHTS))]
    assert asked(calls([*command, "--out", str(tmp_path / "tiny.onnx")], tmp_path)) == []
    assert (tmp_path / "tiny.onnx").is_file()
