"""What is known about the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from cast_sdk import processor


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
