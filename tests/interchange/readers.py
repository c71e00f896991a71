"""Programs whose own readers open our files, in a process of their own: `python readers.py labelme|cvat PATH OUT`.

They lie in the folder that CAST_SDK_READERS names (`make test` puts it in place), apart from the test environment, with
whose packages their pins do not go together. OUT becomes an .npz: `masks` bool [n, h, w], `groups` and `labels`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

VARIABLE = "CAST_SDK_READERS"


def read(kind: str, path: Path, out: Path) -> dict[str, np.ndarray]:
    """What the program `kind` reads."""
    done = run([__file__, kind, str(path), str(out)])
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(out))


def run(words: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Python beside those programs; without them the test skips, or fails where all tools must be here."""
    folder = os.environ.get(VARIABLE)
    if not folder or not Path(folder).is_dir():
        message = f"the readers are not here: set {VARIABLE} to a folder made from tests/interchange/readers.txt"
        pytest.fail(message) if os.environ.get("CAST_SDK_ALL_TOOLS") else pytest.skip(message)
    environment = {**os.environ, "PYTHONPATH": folder}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def labelme(path: str) -> tuple[list[np.ndarray], list[int], list[str]]:
    with mock.patch.dict(sys.modules, {f"PyQt5{part}": mock.MagicMock() for part in ("", ".QtCore", ".QtGui")}):
        from labelme._label_file import read_label_file  # its window is not opened

        found = read_label_file(path)
        import PIL.Image

        with PIL.Image.open(__import__("io").BytesIO(found.image_data)) as image:
            width, height = image.size
    masks = []
    for shape in found.shapes:
        (left, top), (right, bottom) = ([int(value) for value in point] for point in shape["points"])
        mask = np.zeros((height, width), bool)
        mask[top : bottom + 1, left : right + 1] = shape["mask"]
        masks.append(mask)
    return masks, [shape["group_id"] for shape in found.shapes], [shape["label"] for shape in found.shapes]


def cvat(path: str) -> tuple[list[np.ndarray], list[int], list[str]]:
    import datumaro

    data = datumaro.Dataset.import_from(path, "cvat")
    (item,) = data
    names = [label.name for label in data.categories()[datumaro.AnnotationType.label]]
    found = item.annotations
    masks = [np.asarray(one.image).astype(bool) for one in found]
    return masks, [one.group for one in found], [names[one.label] for one in found]


if __name__ == "__main__":
    masks, groups, labels = {"labelme": labelme, "cvat": cvat}[sys.argv[1]](sys.argv[2])
    np.savez(sys.argv[3], masks=np.stack(masks), groups=groups, labels=labels)
