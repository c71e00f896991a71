"""A model of another size in the page, and what the page holds while the camera runs: minutes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from browser import chromium, wait
from photographs import PHOTOS
from test_photographs import differences
from web_tools import data, open_page, problems, segment, static_server, text

import cast_sdk
from cast_sdk.export.web.assemble import write_folder

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "web"))
from memory import COUNTED, MemoryProbe

pytestmark = pytest.mark.full
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def test_a_model_of_the_papers_size(site, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = cast_sdk.create_model("cast_deit_small", num_classes=1000)
    file = tmp_path / "cast_s.onnx"
    cast_sdk.export_onnx(model, file)
    folder = write_folder(file, tmp_path / "site", runtime=site)
    with (
        cast_sdk.Runtime(file, threads=1) as rt,
        static_server(folder) as host,
        chromium(tmp_path, 1440, 900) as page,
    ):
        page.set_script_timeout(60)
        open_page(page, host.url)
        assert "224 x 224 pixels, 196 superpixels" in text(page, "model")
        for photograph in sorted(PHOTOS.glob("*.jpg")):
            found = segment(page, photograph, tmp_path / "downloads")
            assert differences(found, rt.segment(photograph).to_dict()) == [], photograph
        assert problems(page) == []


def test_memory_stays_flat_while_the_camera_runs(site, tmp_path):
    """Objects, arrays and WebAssembly after a collection; `benchmarks/web/page.py` does it for 5,000 frames."""
    pytest.importorskip("websocket")
    counted = tmp_path / "counted"
    shutil.copytree(site, counted)
    with (counted / "worker.js").open("a") as worker:
        worker.write(COUNTED)
    with static_server(counted) as host, chromium(tmp_path, flags=CAMERA) as page:
        open_page(page, host.url)
        probe = MemoryProbe(page, page.service.process.pid)
        page.find_element("id", "camera").click()
        seen = []
        for frames in (100, 300, 600):
            wait(lambda frames=frames: int(data(page, "frames")) > frames, 300)
            seen.append(probe.look())
        early, middle, late = seen
        assert late.wasm == middle.wasm == early.wasm > 10
        assert late.heap < min(early.heap, middle.heap) + 1.5 and late.buffers < max(early.buffers, middle.buffers) + 3
        assert int(data(page, "frames")) > 600 and problems(page) == []
