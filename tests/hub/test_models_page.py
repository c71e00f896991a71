"""The page about models by name, word by word, against the local hub."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from cast_sdk import bundled

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


@pytest.mark.full
def test_the_pages_python_runs(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(bundled.photos()[0], "photo.jpg")
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M):
        exec(block, names)
    assert "cast_small.deit_in1k" in capsys.readouterr().out
    assert names["scores"].shape == (1, 12) and names["features"].logits is None
    assert {path.name for path in Path("mine").iterdir()} == {"README.md", "config.json", "model.safetensors"}
    seg = names["rt"].segment("photo.jpg")
    assert seg.spec.source == "cast_small.deit_in1k" and len(seg.top(9)) == 5
    names["rt"].close()
