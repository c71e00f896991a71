"""The container's file, checked for what can be checked without building it."""

from __future__ import annotations

import re
from pathlib import Path

from cast_sdk.system.installing import requirements

ROOT = Path(__file__).parents[3]
FILE = (ROOT / "examples" / "deploy" / "Dockerfile.service").read_text()


def test_the_image_installs_what_the_service_needs_in_the_versions_it_allows():
    given = dict(re.findall(r'"([a-z-]+)(>=[\d.]+)"', FILE))
    base = {"numpy", "click", "onnxruntime", "opencv-python"}
    project = (ROOT / "pyproject.toml").read_text()
    (wanted,) = re.findall(r"^dependencies = \[(.*?)\]", project, re.S | re.M)
    bounds = dict(re.findall(r'"([a-z-]+)(>=[\d.]+)"', wanted))
    assert set(bounds) == base
    bounds["opencv-python-headless"] = bounds.pop("opencv-python")
    (extra,) = re.findall(r"^serve = \[(.*?)\]", project, re.S | re.M)
    bounds.update(re.findall(r'"([a-z-]+)(>=[\d.]+)"', extra))
    assert given == bounds
    assert {one.name for one in requirements("serve")} <= set(given)


def test_it_does_not_run_as_root_and_ends_gracefully():
    assert re.search(r"^USER \d+$", FILE, re.M) and re.search(r"^STOPSIGNAL SIGTERM$", FILE, re.M)
    assert '["cast-serve", "--serve", "0.0.0.0:8000"]' in FILE and "/healthz" in FILE
