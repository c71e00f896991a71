"""What the wheel and the source archive hold, and how they are made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_wheel_is_complete_and_has_no_source(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("cast_sdk", "runtime", "export", "training"):
        for file in (ROOT / folder).rglob("*"):
            own = file.resolve() == file and file.is_file() and "__pycache__" not in file.parts
            if own and file.suffix not in (".cpp", ".h", ".so"):
                inside = file.relative_to(ROOT).as_posix()
                assert (inside if folder == "cast_sdk" else f"cast_sdk/{inside}") in names, inside
    assert {"cast_sdk/py.typed", "cast_sdk/runtime/camera/index.html"} <= names
    assert any(re.fullmatch(r"cast_sdk/superpixels/_seeds\.abi3\.so", name) for name in names)
    assert not [name for name in names if name.endswith((".cpp", ".hpp", ".h")) or name.startswith("tests/")]
    notices = {name.partition("/licenses/")[2] for name in names if "/licenses/" in name}
    assert {"LICENSE", "cast_sdk/bundled/README.md", "cast_sdk/bundled/photos/README.md"} <= notices


def test_the_archive_keeps_each_folder_once_and_holds_its_tests(unpacked):
    for name in ("runtime", "export", "training"):
        link = unpacked / "cast_sdk" / name
        assert link.is_symlink() and link.resolve() == (unpacked / name).resolve()
    assert (unpacked / "cast_sdk" / "superpixels" / "_seeds.cpp").is_file()
    assert (unpacked / "cast_sdk" / "superpixels" / "_seeds_sweep.h").is_file()
    assert (unpacked / "runtime" / "_resample.cpp").is_file()
    for name in ("_tracking.cpp", "_film.cpp", "_counting.h"):
        assert (unpacked / "runtime" / "tracking" / name).is_file()
    assert (unpacked / "tests" / "golden" / "inputs.npz").is_file()
    tracked = {path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py")}
    assert not [path for path in tracked if not (unpacked / path).is_file()]


def test_tests_of_the_archive_run(unpacked):
    chosen = ["tests/test_hierarchy.py", "tests/superpixels/test_interface.py"]
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=unpacked, check=True, capture_output=True)
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    done = subprocess.run(run, cwd=unpacked, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_without_a_compiler_pip_says_so_at_once(unpacked, tmp_path):
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path]
    shutil.rmtree(unpacked / "build", ignore_errors=True)  # what the wheel was made of would be used again
    pip = [sys.executable, "-m", "pip", "wheel", *options, unpacked]
    without = {**os.environ, "CC": "/nowhere/cc", "CXX": "/nowhere/c++"}
    done = subprocess.run(pip, env=without, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and not list(tmp_path.iterdir())
    assert "The SEEDS kernel of cast-sdk could not be compiled" in said and "sudo apt install g++" in said
    done = subprocess.run(pip, env={**without, "CAST_SDK_KERNEL": "0"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.iterdir()
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]


def test_requirements_name_packages_and_no_address():
    asked = metadata.requires("cast-sdk") or []
    assert asked and not [one for one in asked if "@" in one or "://" in one]
