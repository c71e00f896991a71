"""What is said where OpenCV is missing, damaged, or outside the environment."""

from __future__ import annotations

import sys
import types

import pytest

from cast_sdk.errors import MissingDependencyError
from cast_sdk.system import opencv


def test_a_folder_without_its_functions_is_a_damaged_opencv(monkeypatch):
    left_over = types.ModuleType("cv2")
    left_over.__path__ = ["/env/cv2"]
    monkeypatch.setitem(sys.modules, "cv2", left_over)
    monkeypatch.setattr(opencv, "wheels", lambda: {"opencv-python-headless": "4.12"})
    with pytest.raises(MissingDependencyError, match="damaged") as caught:
        opencv.import_cv2()
    assert caught.value.remedy == "pip install --force-reinstall --no-deps opencv-python-headless==4.12"


@pytest.mark.parametrize(
    "installed, keep",
    [
        ({"opencv-python": "5", "opencv-python-headless": "4"}, "opencv-python-headless==4"),
        (
            {"opencv-python": "5", "opencv-contrib-python": "4", "opencv-python-headless": "3"},
            "opencv-contrib-python==4",
        ),
    ],
)
def test_the_chosen_wheel_is_kept(installed, keep):
    removed, _, kept = opencv.repair(installed).partition(" && ")
    assert kept.endswith(keep)
    assert keep.partition("==")[0] not in removed.split()


def test_the_systems_opencv_is_named(tmp_path):
    folder = tmp_path / "dist-packages"
    (folder / "cv2").mkdir(parents=True)
    assert "--system-site-packages" in opencv.remedy_for("No module named 'cv2'", [folder])
    assert opencv.remedy_for("No module named 'cv2'", []) == "pip install opencv-python"
