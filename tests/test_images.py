"""Which files are images."""

from __future__ import annotations

from pathlib import Path

import pytest

from cast_sdk.images import images_in, is_image


@pytest.mark.parametrize(
    "name, answer", [("a.jpg", True), ("A.JPEG", True), ("b.Tif", True), ("c", False), ("d.gif", False)]
)
def test_names(name: str, answer: bool):
    assert is_image(name) is answer and is_image(Path("folder.png") / name) is answer


def test_folders_are_read_in_order_and_each_once(tmp_path: Path):
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for path in (
        photos / "b.png",
        photos / "a.JPG",
        photos / "inner" / "c.webp",
        elsewhere / "d.jpg",
        photos / "notes.txt",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (photos / "folder.png").mkdir()
    assert [path.name for path in images_in(photos)] == ["a.JPG", "b.png"]
    (photos / "y2024").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(photos)
    (photos / "link.jpg").symlink_to(elsewhere / "d.jpg")
    found = images_in(photos, deep=True)
    assert [str(path.relative_to(photos)) for path in found] == [
        "a.JPG",
        "b.png",
        "inner/c.webp",
        "link.jpg",
        "y2024/d.jpg",
    ]
