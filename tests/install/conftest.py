"""The source archive and the wheel, each built once and installed in an environment outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Environment:
    """A virtual environment that holds an installed cast-sdk and sees the packages that the tests run with."""

    folder: Path
    work: Path  # an empty folder that is no checkout

    def run(self, program: str, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of its programs in the empty folder."""
        clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        done = subprocess.run(
            [self.folder / "bin" / program, *words],
            cwd=self.work,
            env={**clean, "OMP_NUM_THREADS": "1", "PATH": f"{self.folder / 'bin'}:{clean['PATH']}"},
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, f"{program} {words}\n{done.stdout}\n{done.stderr}"
        return done

    def has(self, module: str) -> bool:
        """Whether a module can be imported there."""
        return self.run("python", "-c", f"import {module}", check=False).returncode == 0

    def needs(self, *modules: str) -> None:
        """Skip a test where an environment that was given, such as a base installation, lacks modules."""
        missing = [module for module in modules if not self.has(module)]
        if missing and GIVEN:
            pytest.skip(f"this installation has no {', '.join(missing)}")

    def python(self, code: str) -> str:
        """What a program prints."""
        return self.run("python", "-c", code).stdout


def hook(name: str, source: Path, out: Path) -> Path:
    """Run a hook of the build backend in a source folder; the file it made."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.{name}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, out], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """The source archive."""
    return hook("build_sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def unpacked(archive, tmp_path_factory) -> Path:
    """The folder that the source archive unpacks to."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as file:
        if hasattr(tarfile, "data_filter"):
            file.extractall(folder, filter="data")
        else:
            file.extractall(folder)
    (source,) = folder.iterdir()
    return source


@pytest.fixture(scope="session")
def wheel(unpacked, tmp_path_factory) -> Path:
    """The wheel, built from the unpacked archive."""
    return hook("build_wheel", unpacked, tmp_path_factory.mktemp("wheel"))


GIVEN = os.environ.get("CAST_SDK_TEST_ENVIRONMENT")


@pytest.fixture(scope="session", params=["given"] if GIVEN else ["wheel", "archive"])
def installed(request, tmp_path_factory) -> Environment:
    """An environment with the wheel, then one with the source archive, installed by pip; or one that exists already.

    Tests may ask for "checkout": the environment that they run in.
    """
    base = tmp_path_factory.mktemp(request.param)
    if GIVEN or request.param == "checkout":
        return Environment(Path(GIVEN or sys.prefix), base)
    folder = base / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next((folder / "lib").glob("python3*/site-packages"))
    seen = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "the_tests_packages.pth").write_text("\n".join(seen) + "\n")
    file = request.getfixturevalue(request.param)
    options = ["--no-deps", "--no-build-isolation", "--ignore-installed", "--no-index", "--quiet"]
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", *options, file]
    done = subprocess.run(pip, cwd=base, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (base / "work").mkdir()
    return Environment(folder, base / "work")
