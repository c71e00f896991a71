"""The page about inputs and results, word by word."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cast_sdk import bundled

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text()


def test_the_pages_python_runs(tmp_path, monkeypatch):
    pytest.importorskip("pandas", reason="pandas is not installed")
    monkeypatch.chdir(tmp_path)
    shutil.copy(bundled.photos()[0], "photo.jpg")
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.S | re.M):
        exec(block, names)
    names["rt"].close()
    assert [len(seg.embedding) for seg in names["several"]] == [names["seg"].spec.embed_dim] * 2
    assert len(names["largest"]) == 3 and names["largest"]["area"].is_monotonic_decreasing
    assert len(names["coco"]["images"]) == 2 and {a["level"] for a in names["coco"]["annotations"]} == {1, 2}
    assert {json.loads(Path(name).read_text()).keys() >= {key} for name, key in FILES.items()} == {True}
    assert ElementTree.parse("annotations.xml").getroot().tag == "annotations"


FILES = {"photo.geojson": "features", "photo.json": "shapes"}
