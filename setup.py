"""The compiled part: the SEEDS kernel, a plain shared library that `cast_sdk.superpixels` loads with ctypes.

It does not use Python's C interface, so one build serves every Python version (tag abi3). Without a compiler the
installation goes on, and superpixels come from OpenCV's contrib module where that exists.
"""

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext


class BuildLibrary(build_ext):
    """An extension without the entry point that a Python module would export."""

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return list(ext.export_symbols)


class AbiWheel(bdist_wheel):
    """Tag the wheel for every Python from 3.10 on."""

    def finalize_options(self) -> None:
        self.py_limited_api = self.py_limited_api or "cp310"
        super().finalize_options()


setup(
    ext_modules=[
        Extension(
            "cast_sdk.superpixels._seeds",
            ["cast_sdk/superpixels/_seeds.cpp"],
            language="c++",
            # No contraction to fused multiply-add: labels are compared bit by bit with OpenCV's.
            extra_compile_args=["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-g0"],
            py_limited_api=True,
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": AbiWheel},
)
