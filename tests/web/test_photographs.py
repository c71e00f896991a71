"""The page in real headless Chromium gives what Python's Runtime gives, photograph by photograph."""

from __future__ import annotations

import numpy as np
import pytest
from photographs import PHOTOS, make_photographs
from web_tools import open_page, problems, segment, static_server

from cast_sdk import Runtime
from cast_sdk.export.web.assemble import write_folder

QUICK = ("orientation6.jpg", "tiny.jpg", "flat.webp", "transparent.png", "palette.png", "profile.jpg", "oriented.png")


def differences(found: dict, expected: dict) -> list[str]:
    """What of two results is not equal, in words; times and paths are not compared."""
    trouble = [key for key in ("schema_version", "model", "size", "unsure") if found[key] != expected[key]]
    if [entry["class_id"] for entry in found["top"]] != [entry["class_id"] for entry in expected["top"]]:
        trouble.append("classes")
    probabilities = [[entry["probability"] for entry in result["top"]] for result in (found, expected)]
    if np.abs(np.subtract(*probabilities)).max() > 2e-4:
        trouble.append("probabilities")
    if np.abs(np.subtract(found["embedding"], expected["embedding"])).max() > 1e-3:
        trouble.append("embedding")
    trouble += [f"level {a['level']}" for a, b in zip(found["levels"], expected["levels"], strict=True) if a != b]
    return trouble


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return list(make_photographs(tmp_path_factory.mktemp("photographs")))


def compare(page, server, photographs, graph=None) -> dict[str, list[str]]:
    open_page(page, server.url)
    rt, found = Runtime(graph, threads=1), {}
    for path in photographs:
        result = segment(page, path, page.downloads)
        assert set(result["timing_ms"]) == {"decode", "preprocess", "superpixels", "model", "postprocess", "total"}
        assert result["source"] == path.name
        if trouble := differences(result, rt.segment(path).to_dict()):
            found[path.name] = trouble
    assert problems(page) == []
    return found


def test_some_photographs(desktop, server, photographs):
    assert compare(desktop, server, [path for path in photographs if path.name in QUICK]) == {}


def test_levels_however_they_are_made(desktop, site, graph, tmp_path):
    folder = write_folder(graph, tmp_path / "site", runtime=site)
    with static_server(folder) as host:
        assert compare(desktop, host, [PHOTOS / "cat.jpg", PHOTOS / "coffee.jpg"], graph) == {}


@pytest.mark.full
def test_all_photographs(desktop, server, photographs):
    """Labels of all levels, boxes and masks: the whole JSON."""
    assert len(photographs) == 33
    assert compare(desktop, server, photographs) == {}
