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


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Exported models that give tokens: "taxonomy" has three heads, "segmenter" a class for each superpixel."""
    from export_tools import small_model

    from cast_sdk.export import export_onnx

    folder = tmp_path_factory.mktemp("kinds")
    names = {"taxonomy": "cast_deit_small with a taxonomy", "segmenter": "segmenter_cast_small"}
    for kind, name in names.items():
        export_onnx(small_model(name), folder / f"{kind}.onnx", verify=False, tokens=True)
    return {kind: folder / f"{kind}.onnx" for kind in names}


def fill(root: Path, photo: np.ndarray) -> Path:
    (root / "inner").mkdir(parents=True)
    for number in range(12):
        image = np.roll(photo, 13 * number, 1)[: 200 + 3 * number, : 150 + 7 * number]
        suffix = (".jpg", ".png", ".webp")[number % 3]
        cv2.imwrite(str(root / ("inner" if number % 2 else "") / f"{number:02}{suffix}"), image)
    return root
