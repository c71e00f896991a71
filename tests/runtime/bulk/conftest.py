"""A folder of small photographs of several kinds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture
def folder(tmp_path: Path, photo: np.ndarray) -> Path:
    """12 images in two folders, of several sizes and formats; the test's own."""
    return fill(tmp_path / "photos", photo)


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory, photo: np.ndarray) -> Path:
    """The same images, shared: nobody changes them."""
    return fill(tmp_path_factory.mktemp("stock") / "photos", photo)


def fill(root: Path, photo: np.ndarray) -> Path:
    (root / "inner").mkdir(parents=True)
    for number in range(12):
        image = np.roll(photo, 13 * number, 1)[: 200 + 3 * number, : 150 + 7 * number]
        suffix = (".jpg", ".png", ".webp")[number % 3]
        cv2.imwrite(str(root / ("inner" if number % 2 else "") / f"{number:02}{suffix}"), image)
    return root
