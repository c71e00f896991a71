"""Saved torch programs: Torch-TensorRT's (.ep) and AOTInductor's (.pt2), with the description inside the file."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from cast_sdk.artifact import INFO_KEY, SPEC_KEY, from_metadata
from cast_sdk.errors import ArtifactError, InputError, MissingDependencyError
from cast_sdk.runtime.backends.base import check_batch
from cast_sdk.runtime.backends.feeding import Feeder, matrix_shapes
from cast_sdk.runtime.backends.forking import StaysBehind, watch
from cast_sdk.runtime.backends.ports import expected_inputs
from cast_sdk.runtime.backends.torch_settings import exact_float32
from cast_sdk.system.installing import pip_install

PACKAGE = ".pt2"
_MAX_DESCRIPTION = 4 * 2**20  # bytes; real ones have a few thousand
_DEVICE_KEY = "AOTI_DEVICE_KEY"  # AOTInductor's own


class TorchProgramBackend(StaysBehind):
    """A program that torch saved. See `Backend`. Thread-safe: runs come one after another.

    Args:
        path: written by `cast-export --torch-trt` (.ep) or `cast-export --aot` (.pt2).
        device: "auto", or what the program was compiled for: CUDA for Torch-TensorRT's.
        allow_code: open it. torch unpickles parts of a program and loads compiled code from it, so a file of a stranger
            could run anything: allow it only for files that you or somebody you trust made.
    """

    engine_name = "torch"
    native = ("_module",)

    def __init__(self, path: str | os.PathLike[str], *, device: str = "auto", allow_code: bool = False) -> None:
        file = Path(path)
        if not allow_code:
            raise InputError(
                f"{os.fspath(path)} is a torch program, which can run code of whoever made it.",
                remedy="pass allow_code=True (commands: --allow-code) if you trust its origin, or use the .onnx file",
            )
        try:
            import torch
        except ImportError as error:
            raise MissingDependencyError(
                f"torch, which runs {file.suffix} programs, cannot be imported.",
                found=str(error),
                remedy=pip_install("export"),
            ) from error
        stored = read_program(path)
        self.spec, self.info = from_metadata(stored, path)
        tensorrt = "torch-tensorrt" in self.info.created_by
        self.device = stored.get(_DEVICE_KEY, "cuda" if tensorrt else "cpu")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise MissingDependencyError(
                "This program was compiled for an NVIDIA GPU, and torch finds none.",
                found=f"torch {torch.__version__} without a usable GPU",
                remedy="run the .onnx or the checkpoint on the CPU",
            )
        if device not in ("auto", self.device):
            raise InputError(f"This program was compiled for {self.device} and cannot run on {device}.")
        if tensorrt:
            try:
                import torch_tensorrt  # noqa: F401  (registers the operators that hold the engines)
            except Exception as error:  # it raises plain Exception where TensorRT's libraries are missing
                raise MissingDependencyError(
                    "The Torch-TensorRT that runs this program cannot be imported.",
                    found=f"{type(error).__name__}: {error}; compiled by {self.info.created_by}",
                    remedy=pip_install("torch-trt"),
                ) from error
        try:
            if file.suffix.lower() == PACKAGE:
                self._module: Any = torch._inductor.aoti_load_package(os.fspath(path))
            else:
                self._module = torch.export.load(os.fspath(path)).module()
        except Exception as error:  # torch raises what its deserialiser raises
            option = "--aot" if file.suffix.lower() == PACKAGE else "--torch-trt"
            raise ArtifactError(
                f"torch cannot load the program {os.fspath(path)}.",
                found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
                remedy=f"compile it again with this torch ({torch.__version__}): cast-export --ckpt FILE {option}",
            ) from error
        self._torch: Any = torch
        self._feeder = Feeder(expected_inputs(self.spec, self.info), matrix_shapes(self.spec, self.info))
        self._lock = threading.Lock()
        watch(self)

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> dict[str, np.ndarray]:
        check_batch(self.info, image, superpixels)
        with self._lock:
            self.check_process()
            if self._module is None:
                raise InputError("This backend is closed.", remedy="open the model again")
            torch = self._torch
            with self._feeder.feed(image, superpixels) as feed, torch.inference_mode(), exact_float32(torch):
                values = self._module(*(torch.from_numpy(array).to(self.device) for array in feed.values()))
        return {name: value.cpu().numpy() for name, value in zip(self.info.outputs, values, strict=True)}

    def close(self) -> None:
        with self._lock:
            self.drop()
            self._feeder.clear()


def read_program(path: str | os.PathLike[str]) -> dict[str, str]:
    """The description that a program carries, read without loading it: a zip archive.

    Torch-TensorRT's have our files in a folder `extra_files` or `extra`. AOTInductor's keep ours in its own JSON, with
    the device that the package is for.
    """
    import zipfile

    package = os.fspath(path).lower().endswith(PACKAGE)
    try:
        with zipfile.ZipFile(path) as archive:
            return _package_metadata(archive) if package else _extra_files(archive)
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError, KeyError, ValueError) as error:
        reason = f"no {error} in it" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(
            f"{os.fspath(path)} is not a complete torch program with cast_sdk's model description.",
            found=reason,
            remedy=f"copy the file again, or compile it again: cast-export --ckpt CHECKPOINT "
            f"{'--aot' if package else '--torch-trt'}",
        ) from error


def _extra_files(archive: Any) -> dict[str, str]:
    entries = {info.filename.rsplit("/", 1)[-1]: info for info in archive.infolist() if "extra" in info.filename}
    return {key: _small(archive, entries[key], key).decode() for key in (SPEC_KEY, INFO_KEY)}


def _package_metadata(archive: Any) -> dict[str, str]:
    name = "wrapper_metadata.json"
    entries = [info for info in archive.infolist() if info.filename.endswith(name)]
    if not entries:
        raise KeyError(name)
    stored = json.loads(_small(archive, entries[0], name))
    if not isinstance(stored, dict):
        raise ValueError(f"{name} is no object")
    return {key: str(stored[key]) for key in (SPEC_KEY, INFO_KEY, _DEVICE_KEY)}


def _small(archive: Any, entry: Any, name: str) -> bytes:
    if entry.file_size > _MAX_DESCRIPTION:
        raise KeyError(f"{name} of at most {_MAX_DESCRIPTION} bytes")
    content: bytes = archive.read(entry)
    return content
