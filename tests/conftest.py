"""Folders of fixtures and data, and the two rules for skipping."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"

# A background job starts with SIGINT ignored and hands that down; programs under test are to hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    for item in items:
        if "gpu" in item.keywords and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU; this machine has none"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Numeric fixtures of the reference models."""
    return GOLDEN


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with real images (bsds500/, imagenet_samples/, camvid/, coco128/, tiny_imagenet64/)."""
    value = os.environ.get("CAST_SDK_DATA")
    if not value or not Path(value).is_dir():
        pytest.skip("real images are not here: set CAST_SDK_DATA to the folder that holds bsds500/, camvid/, ...")
    return Path(value)


@pytest.fixture(scope="session")
def photos(data_dir) -> list[Path]:
    """500 photographs, sorted."""
    return sorted((data_dir / "imagenet_samples").glob("*.jpg"))
