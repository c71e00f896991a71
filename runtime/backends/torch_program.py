"""Saved torch programs (.ep), such as Torch-TensorRT's: run through torch, with the description inside the file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from cast_sdk.artifact import INFO_KEY, SPEC_KEY, from_metadata
from cast_sdk.errors import ArtifactError, InputError, MissingDependencyError
from cast_sdk.runtime.backends.base import check_batch
from cast_sdk.runtime.backends.forking import StaysBehind, watch
from cast_sdk.system.installing import pip_install

_MAX_DESCRIPTION = 4 * 2**20  # bytes; real ones have a few thousand


class TorchProgramBackend(StaysBehind):
    """A program that `torch.export` saved. See `Backend`.

    Args:
        path: written by `cast-export --torch-trt`.
        device: "auto", or what the program was compiled for: CUDA for Torch-TensorRT's.
        allow_code: open it. torch unpickles parts of a program and loads compiled code from it, so a file of a stranger
            could run anything: allow it only for files that you or somebody you trust made.
    """

    engine_name = "torch"
    native = ("_module",)

    def __init__(self, path: str | os.PathLike[str], *, device: str = "auto", allow_code: bool = False) -> None:
        if not allow_code:
            raise InputError(
                f"{os.fspath(path)} is a torch program, which can run code of whoever made it.",
                remedy="pass allow_code=True (commands: --allow-code) if you trust its origin, or use the .onnx file",
            )
        try:
            import torch
        except ImportError as error:
            raise MissingDependencyError(
                "torch, which runs .ep programs, cannot be imported.",
                found=str(error),
                remedy=pip_install("export"),
            ) from error
        stored = read_extra(path)
        self.spec, self.info = from_metadata(stored, path)
        compiled = "torch-tensorrt" in self.info.created_by
        if compiled and not torch.cuda.is_available():
            raise MissingDependencyError(
                "This program was compiled for an NVIDIA GPU, and torch finds none.",
                found=f"torch {torch.__version__} without a usable GPU",
                remedy="run the .onnx or the checkpoint on the CPU",
            )
        self.device = "cuda" if compiled else "cpu"
        if device not in ("auto", self.device):
            raise InputError(f"This program was compiled for {self.device} and cannot run on {device}.")
        if compiled:
            try:
                import torch_tensorrt  # noqa: F401  (registers the operators that hold the engines)
            except Exception as error:  # it raises plain Exception where TensorRT's libraries are missing
                raise MissingDependencyError(
                    "The Torch-TensorRT that runs this program cannot be imported.",
                    found=f"{type(error).__name__}: {error}; compiled by {self.info.created_by}",
                    remedy=pip_install("torch-trt"),
                ) from error
        try:
            self._module: Any = torch.export.load(os.fspath(path)).module()
        except Exception as error:  # torch raises what its deserialiser raises
            raise ArtifactError(
                f"torch cannot load the program {os.fspath(path)}.",
                found=f"{type(error).__name__}: {str(error).splitlines()[0]}",
                remedy=f"compile it again with this torch ({torch.__version__}): cast-export --ckpt FILE --torch-trt",
            ) from error
        self._torch: Any = torch
        watch(self)

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> dict[str, np.ndarray]:
        check_batch(self.info, image, superpixels)
        self.check_process()
        if self._module is None:
            raise InputError("This backend is closed.", remedy="open the model again")
        torch = self._torch
        arrays = (image, superpixels) if self.spec.uses_superpixels else (image,)
        with torch.inference_mode():
            values = self._module(*(torch.from_numpy(array).to(self.device) for array in arrays))
        return {name: value.cpu().numpy() for name, value in zip(self.info.outputs, values, strict=True)}

    def close(self) -> None:
        self.drop()


def read_extra(path: str | os.PathLike[str]) -> dict[str, str]:
    """Our extra files of a program: a zip archive that keeps them in a folder `extra_files` or `extra`."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            entries = {
                info.filename.rsplit("/", 1)[-1]: info for info in archive.infolist() if "extra" in info.filename
            }
            large = [key for key in (SPEC_KEY, INFO_KEY) if entries[key].file_size > _MAX_DESCRIPTION]
            if large:
                raise KeyError(f"{large[0]} of at most {_MAX_DESCRIPTION} bytes")
            return {key: archive.read(entries[key]).decode() for key in (SPEC_KEY, INFO_KEY)}
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError, KeyError) as error:
        reason = f"no {error} in it" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(
            f"{os.fspath(path)} is not a complete torch program with cast_sdk's model description.",
            found=reason,
            remedy="copy the file again, or compile it again: cast-export --ckpt CHECKPOINT --torch-trt",
        ) from error
