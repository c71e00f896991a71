"""What a person gets who installs the wheel or the source archive, outside the checkout."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.request
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
COMMANDS = sorted(
    point.name for point in metadata.distribution("cast-sdk").entry_points if point.group == "console_scripts"
)


def test_the_description_has_no_link_into_the_repository(installed):
    head, _, page = installed.python(
        "from importlib import metadata; print(metadata.distribution('cast-sdk').read_text('METADATA'))"
    ).partition("\n\n")
    for line in ("License-Expression: MIT", "Author: The cast_sdk authors", "Classifier: Typing :: Typed"):
        assert line in head
    assert "Project-URL: Paper," in head
    assert "# cast_sdk" in page
    targets = re.findall(r"\]\(([^)#]+)\)", page)
    assert not [target for target in targets if "://" not in target]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_start(installed, command):
    assert "Usage:" in installed.run(command, "--help").stdout


def test_runtime_on_a_photograph(installed):
    code = (
        "import cast_sdk, sys; from cast_sdk import bundled\n"
        "seg = cast_sdk.Runtime().segment(bundled.path('photos/cat.jpg'))\n"
        "assert 'torch' not in sys.modules\n"
        "print(cast_sdk.__file__, seg.labels(2).shape, [seg.num_segments(level) for level in range(5)])"
    )
    text = installed.python(code)
    assert str(installed.folder) in text
    assert "(224, 224)" in text


def test_segment_bench_and_doctor(installed):
    photo = ROOT / "examples" / "photos" / "cat.jpg"
    said = installed.run("cast-segment", photo, "--out", "segments", "--json").stdout
    assert "milliseconds" in said
    assert (installed.work / "segments" / "cat.png").is_file() and (installed.work / "segments" / "cat.json").is_file()
    timed = json.loads(installed.run("cast-bench", "--frames", "2", "--warmup", "1", "--streams", "0", "--json").stdout)
    assert timed
    findings = json.loads(installed.run("cast-doctor", "--json").stdout)
    assert {"superpixels": "ok", "bundled model": "ok"}.items() <= {f["name"]: f["status"] for f in findings}.items()
    assert "cast_small" in installed.run("cast-doctor", "models").stdout


def test_a_checkpoint_of_the_official_layout_is_exported_and_verified(installed):
    installed.needs("torch", "onnxscript")
    installed.python(
        "import torch, cast_sdk; torch.manual_seed(0)\n"
        "model = cast_sdk.create_model('cast_small', embed_dim=96, depths=(1, 1, 1, 1), num_classes=10)\n"
        "cast_sdk.save_official(model, 'official.pth.tar', kind='lincls')"
    )
    out = installed.work / "official.onnx"
    said = installed.run("cast-export", "--ckpt", "official.pth.tar", "--out", out).stderr
    assert "8 images" in said or "8 photographs" in said, said
    facts = json.loads(installed.run("cast-export", "inspect", out, "--json").stdout)
    assert facts


def test_exporting_without_torch_says_what_to_install(installed):
    if installed.has("torch"):
        pytest.skip("this installation has torch")
    (installed.work / "any.pth").write_bytes(b"PK" + bytes(1000))
    for words in (["--ckpt", "any.pth"], ["inspect", "any.pth"], ["compare", "any.pth", "any.pth"]):
        done = installed.run("cast-export", *words, check=False)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "torch" in done.stderr and "pip install" in done.stderr and "cast-sdk" not in done.stderr


def test_a_recipe_by_name(installed):
    installed.needs("yaml", "torch")
    code = (
        "from cast_sdk.training.engine.recipe.files import load_recipe\n"
        "print(load_recipe('moco_in1k_cast_small').model.name)"
    )
    assert installed.python(code).strip() == "cast_small"


def test_a_model_is_trained(installed):
    installed.needs("torch", "torchvision", "timm", "torchmetrics")
    installed.python(
        "import numpy as np, cv2; from pathlib import Path; numbers = np.random.default_rng(0)\n"
        "for split in ('train', 'val'):\n"
        "    for name in 'ab':\n"
        "        Path('data', split, name).mkdir(parents=True, exist_ok=True)\n"
        "        for index in range(4):\n"
        "            cv2.imwrite(f'data/{split}/{name}/{index}.png', numbers.integers(0, 256, (64, 64, 3), np.uint8))"
    )
    words = ["--recipe", "tiny_supervised", "--data", "data", "--out", "run", "--device", "cpu"]
    small = ["--set", "train.batch=4", "--set", "schedule.epochs=1", "--set", "schedule.minutes=null"]
    installed.run("python", "-m", "cast_sdk.training.supervised", *words, *small)
    assert (installed.work / "run" / "checkpoint.pth").is_file()


def test_the_camera_page_is_served(installed):
    installed.needs("starlette", "uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        installed.folder / "bin" / "cast-camera",
        "test://",
        "--serve",
        f"127.0.0.1:{port}",
        "--frames",
        "100000",
    ]
    with subprocess.Popen(command, cwd=installed.work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            page = ""
            for _ in range(240):
                try:
                    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
                    break
                except OSError:
                    assert server.poll() is None, server.stdout.read().decode()
                    time.sleep(0.25)
            assert "<title>" in page and "cast" in page.lower()
        finally:
            server.terminate()
