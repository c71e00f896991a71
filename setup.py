"""What pyproject.toml cannot say: the compiled kernels, the source archive's links, and the long description.

The kernels, of superpixels, resizing and tracking, are one plain shared library that is loaded with ctypes. It does
not use Python's C interface, so one build serves every Python version (tag abi3).

Variables of the environment:
    CAST_SDK_KERNEL=0           install without the kernel: superpixels come from an OpenCV with its contrib module
    CAST_SDK_REPOSITORY=URL     where the repository is, for the links and pictures of the long description
"""

import os
import re
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import CCompilerError, PlatformError

ROOT = Path(__file__).parent
LINKS = ("runtime", "export", "training")  # cast_sdk/NAME -> ../NAME
REPOSITORY = os.environ.get("CAST_SDK_REPOSITORY", "").rstrip("/")
URLS = {
    "Paper": "https://openreview.net/forum?id=IRcv4yFX6z",
    "Reference release": "https://github.com/twke18/CAST",
}
NO_COMPILER = """
The SEEDS kernel of cast-sdk could not be compiled: {error}
  Remedy: install a C++ compiler (sudo apt install g++) and run the same command again,
          or install a wheel (.whl) of cast-sdk, which needs no compiler,
          or go on without the kernel where OpenCV has its contrib module: set CAST_SDK_KERNEL=0 and run it again.
"""


class BuildLibrary(build_ext):
    """An extension without the entry point that a Python module would export, and one plain message when it fails."""

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return list(ext.export_symbols)

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except (CCompilerError, PlatformError) as error:
            sys.exit(NO_COMPILER.format(error=error))


class AbiWheel(bdist_wheel):
    """Tag the wheel for every Python from 3.10 on."""

    def finalize_options(self) -> None:
        self.py_limited_api = self.py_limited_api or "cp310"
        super().finalize_options()


class LinkedSource(sdist):
    """Keep each folder once in the archive: cast_sdk/runtime and its like, left out by MANIFEST.in, stay links."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        for name in LINKS:
            link = Path(base_dir, "cast_sdk", name)
            link.unlink(missing_ok=True)  # of one that was killed
            link.symlink_to(Path("..", name), target_is_directory=True)


def long_description(page: str, repository: str) -> str:
    """The README for a page elsewhere: relative links become absolute, or plain words without an address."""

    def link(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        if not repository:
            return "" if picture else words
        return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/main/{target})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", link, page)


kernel = Extension(
    "cast_sdk.superpixels._seeds",
    [
        "cast_sdk/superpixels/_seeds.cpp",
        "cast_sdk/superpixels/_assignment.cpp",
        "cast_sdk/superpixels/_merging.cpp",
        "runtime/_resample.cpp",
        "runtime/tracking/_film.cpp",
        "runtime/tracking/_tracking.cpp",
    ],
    depends=[
        *(f"cast_sdk/superpixels/_seeds_{part}.h" for part in ("pairs", "plane", "sweep")),
        "runtime/tracking/_counting.h",
    ],
    language="c++",
    # No contraction to fused multiply-add: labels are compared bit by bit with OpenCV's, and tracks with NumPy's.
    extra_compile_args=["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-g0"],
    extra_link_args=[] if sys.platform == "darwin" else ["-s"],
    py_limited_api=True,
)

setup(
    ext_modules=[] if os.environ.get("CAST_SDK_KERNEL") == "0" else [kernel],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": AbiWheel, "sdist": LinkedSource},
    long_description=long_description((ROOT / "README.md").read_text(encoding="utf-8"), REPOSITORY),
    long_description_content_type="text/markdown",
    project_urls=URLS
    | ({"Repository": REPOSITORY, "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md"} if REPOSITORY else {}),
)
