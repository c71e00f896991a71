"""The Python and the commands of the pages, run outside the checkout: by the installed wheel and by a checkout."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])

# What a reader of the page has before its first block.
BEFORE = {
    "docs/segmentation.md": "import cast_sdk, cv2\nframe = cv2.imread('photo.jpg')",
    "docs/superpixels.md": (
        "import cast_sdk, cv2, numpy as np\nspec = cast_sdk.Runtime().spec\n"
        "image_rgb = np.ascontiguousarray(cv2.imread('photo.jpg')[:224, :224, ::-1])\nimages = image_rgb[None]"
    ),
    "docs/reference_release.md": (
        "import torch\nimage = torch.zeros(1, 3, 224, 224)\nsuperpixels = torch.arange(196).view(14, 14)\n"
        "superpixels = superpixels.repeat_interleave(16, 0).repeat_interleave(16, 1)[None]"
    ),
}
# What is shortened, and what stands for hardware.
INSTEAD = {
    'rt.stream("rtsp://camera/live")': 'rt.stream("test://?count=3")',
    "test://?count=100": "test://?count=3",
    "127.0.0.1:8000": "127.0.0.1:{port} --frames 3",
    "--calibrate photos/": "--calibrate many/",
    "cast-bench cast_s.onnx": "cast-bench cast_s.onnx --frames 2 --warmup 1 --streams 0",
    "cast-bench --compare cast_s.onnx": "cast-bench --frames 2 --warmup 1 --streams 0 --compare cast_s.onnx",
}
# What cannot run here, and why.
NOT_RUN = {
    "from cast_models": "the reference release itself",
    'device="cuda"': "needs an NVIDIA GPU",
    "--trt": "builds an engine: tests/export/engines/test_tensorrt_build.py",
    ".engine": "needs an NVIDIA GPU",
    "cast-camera 0": "needs a camera",
    "csi://": "needs a camera",
    "s3://": "needs a network",
    "hf://": "needs a network: tests/hub",
    "_in1k": "needs a network: tests/hub",
    "cast-train": "needs somebody's images: tests/training/own",
    "runs/roads/": "needs the training before it",
    "shards/*.tar": "needs shards",
    "table.parquet": "needs a table",
    "--engine ray": "needs Ray, 240 MB: tests/runtime/bulk/test_ray.py",
    "faiss": "needs faiss",
    "cast-serve": "never ends: tests/runtime/service/test_service.py",
    "urlopen": "needs the service: tests/runtime/service/test_service.py",
    'read_table("data/': "needs a data set: tests/runtime/bulk/test_command.py",
    'dataset("data")': "needs a data set: tests/runtime/bulk/test_command.py",
    "rtsp://": "needs a camera",
    "--precision int8": "random weights need not keep the bars in INT8: tests/export/test_reduced.py",
    "cast-export sensitivity": "minutes: tests/export/test_reduced.py",
    "runs/birds/": "needs the training before it",
    "best_checkpoint.pth": "needs the training before it",
    "segmenter.pth": "a segmenter for processors: tests/export/test_cpu_target.py",
    "cast_s_int8.onnx": "after the export of the int8 file",
}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, languages: str) -> list[str]:
    return re.findall(rf"^```(?:{languages})\n(.*?)^```", page.read_text(), re.S | re.M)


def runs(text: str) -> bool:
    """Whether the code, without its comments, runs here."""
    code = re.sub(r"(^|\s)#.*", "", text)
    return not any(part in code for part in NOT_RUN)


def instead(text: str, port: int = 0) -> str:
    for old, new in INSTEAD.items():
        text = text.replace(old, new.replace("{port}", str(port)))
    return text


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """A folder with the files that the pages speak of: photographs, a checkpoint, models, a recording."""
    import cv2
    from export_tools import small_model

    from cast_sdk import export_onnx, save_official

    folder = tmp_path_factory.mktemp("files")
    photos = ROOT / "examples" / "photos"
    shutil.copytree(photos, folder / "photos", ignore=shutil.ignore_patterns("*.md"))
    shutil.copy(photos / "cat.jpg", folder / "photo.jpg")
    save_official(small_model("cast_small"), folder / "cast_s.pth", kind="lincls")
    for name, file in [
        ("cast_small", "cast_s.onnx"),
        ("segmenter_cast_small", "camvid.onnx"),
        ("cast_deit_small with a taxonomy", "birds.onnx"),
    ]:
        export_onnx(small_model(name), folder / file, verify=False)
    (folder / "many").mkdir()
    frame = cv2.imread(str(photos / "coffee.jpg"))
    for index in range(64):  # int8 wants as many
        cv2.imwrite(str(folder / "many" / f"{index}.png"), frame[index : index + 160, index : index + 160])
    camera = [sys.executable, "-m", "cast_sdk.runtime.commands.camera", "test://?count=3", "--headless"]
    subprocess.run([*camera, "--record", "out.mp4"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def reader(installed, files):
    """Somebody who reads a page in a folder of such files."""
    folder = installed.work / "reader"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(files, folder)
    return replace(installed, work=folder)


CHECKOUT_IN_FULL = pytest.param("checkout", marks=pytest.mark.full)  # the same programs


def environments(*names: object):
    """Parametrize `installed`; an environment that was given is the only one."""
    given = os.environ.get("CAST_SDK_TEST_ENVIRONMENT")
    return pytest.mark.parametrize("installed", ["given"] if given else names, indirect=True, scope="session")


def python_pages() -> list[Path]:
    return [page for page in PAGES if any(map(runs, blocks(page, "python")))]


@environments("wheel", "checkout")
@pytest.mark.parametrize("page", python_pages(), ids=name_of)
def test_python(reader, page):
    if "create_model" in page.read_text() or "load_model" in page.read_text():
        reader.needs("torch")
    code = [BEFORE.get(name_of(page), ""), *map(instead, filter(runs, blocks(page, "python")))]
    reader.python("\n".join(code))


def command_lines(page: Path) -> list[str]:
    """The lines of a page that run a command of this package."""
    text = "\n".join(blocks(page, "bash|sh")).replace("\\\n", " ")
    if page.name == "README.md":
        text += "\n" + "\n".join(re.findall(r"^\| `(cast-[^`]+)` \|", page.read_text(), re.M))
    return [line for line in text.splitlines() if line.startswith("cast-") and runs(line)]


EXPORTS = re.compile(r"cast-export (?!inspect)")
LINES = [(name_of(page), line) for page in PAGES for line in command_lines(page)]


@environments("wheel", CHECKOUT_IN_FULL)
@pytest.mark.parametrize("page", sorted({page for page, line in LINES if not EXPORTS.match(line)}))
def test_commands(reader, page):
    for where, line in LINES:
        if where == page and not EXPORTS.match(line):
            run_line(reader, line)


@pytest.mark.full
@environments("wheel")
@pytest.mark.parametrize("page", sorted({page for page, line in LINES if EXPORTS.match(line)}))
def test_exports(reader, page):
    """In the order of the page: what one line writes the next may read."""
    for where, line in LINES:
        if where == page and EXPORTS.match(line):
            run_line(reader, line)


def run_line(reader, line: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, *words = shlex.split(instead(line, port), comments=True)
    wanted = words[words.index("--out") + 1] if "--out" in words else None
    for made in [wanted] if wanted and Path(reader.work, wanted).is_file() else []:
        Path(reader.work, made).unlink()
    done = reader.run(program, *words)
    assert "Traceback" not in done.stderr
    assert wanted is None or Path(reader.work, wanted).exists()
