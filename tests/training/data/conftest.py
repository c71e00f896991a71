"""The reference's views, from the benchmark that times them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def loader_benchmark() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "training" / "loader.py"
    spec = importlib.util.spec_from_file_location("loader_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
