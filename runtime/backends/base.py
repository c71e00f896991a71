"""One interface for whatever runs the network: ONNX Runtime, OpenVINO, TensorRT or torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from cast_sdk.artifact import ExportInfo
from cast_sdk.errors import ArtifactError, InputError
from cast_sdk.spec import ModelSpec
from cast_sdk.system.files import kind_at
from cast_sdk.system.processor import available_cores

DEVICES = ("auto", "cpu", "cuda")


@runtime_checkable
class Backend(Protocol):
    """A loaded network.

    Attributes:
        spec: the model's description.
        info: the graph's static shapes and precision; `info.batch` None means any batch.
        device: "cpu" or "cuda", what it really runs on.
    """

    spec: ModelSpec
    info: ExportInfo
    device: str

    def run(self, image: np.ndarray, superpixels: np.ndarray) -> dict[str, np.ndarray]:
        """Run one batch.

        Args:
            image: uint8 [B, H, W, 3] RGB, C-contiguous.
            superpixels: int32 [B, H, W], labels below `info.num_superpixels`; ignored by models without superpixels.

        Returns:
            Arrays by output name: `embedding` float32 [B, C]; `logits` float32 [B, classes] with a classifier;
            `level1`.. int32 [B, S], composed fine to coarse, for hierarchical models; `semantic` int32 [B, S] for
            dense heads; soft assignments and tokens where the export asked for them. The caller owns the arrays.
        """
        ...

    def close(self) -> None:
        """Free the network. Further calls of `run` are errors; closing twice is not."""
        ...


def check_file(path: str | os.PathLike[str]) -> Path:
    """The path, if it is a file with content.

    Raises:
        ArtifactError: missing, a folder, empty or unreadable.
    """
    file = Path(path)
    kind = kind_at(file)
    if kind == "nothing":
        raise ArtifactError(f"There is no file {file}.", remedy="check the path")
    if kind == "folder":
        raise ArtifactError(f"The model {file} is a folder.", remedy="name a file in it")
    if kind == "other":
        raise ArtifactError(f"The model {file} is a pipe, socket or device.", remedy="name an ordinary file")
    if file.stat().st_size == 0:
        raise ArtifactError(f"The model file {file} is empty.", remedy="copy or export the file again")
    if not os.access(file, os.R_OK):
        raise ArtifactError(
            f"The model file {file} cannot be read.", found="no permission", remedy=f"check it with: ls -l {file}"
        )
    return file


def check_batch(info: ExportInfo, image: np.ndarray, superpixels: np.ndarray) -> None:
    """Check one batch against the static shapes, before a backend's own less helpful message.

    Raises:
        InputError: for another dtype or shape, naming both.
    """
    batch = info.batch or len(image)
    pixels = (batch, info.height, info.width)
    for name, array, dtype, shape in (
        ("image", image, np.dtype(np.uint8), (*pixels, 3)),
        ("superpixels", superpixels, np.dtype(np.int32), pixels),
    ):
        if array.dtype != dtype or array.shape != shape:
            raise InputError(
                f"The model's input {name!r} is {array.dtype} of shape {list(array.shape)}, "
                f"not {dtype} of shape {list(shape)}.",
                remedy="use Runtime, which prepares frames of any size, or export with --image-size and --batch",
            )


def run_padded(backend: Backend, image: np.ndarray, superpixels: np.ndarray) -> dict[str, np.ndarray]:
    """Run at most one static batch: it is filled up with the last image, and the outputs are cut again.

    Args:
        backend: what runs.
        image: uint8 [n, H, W, 3]; n is at most the backend's batch where that is fixed.
        superpixels: int32 [n, H, W].

    Returns:
        Outputs by name, of n rows.
    """
    count = len(image)
    size = backend.info.batch or count
    if count < size:
        rows = np.minimum(np.arange(size), count - 1)
        image, superpixels = image[rows], superpixels[rows]
    return {name: value[:count] for name, value in backend.run(image, superpixels).items()}


def run_images(backend: Backend, image: np.ndarray, superpixels: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Outputs of each of n images, without a batch axis: uint8 [n, H, W, 3] and int32 [n, H, W], in batches as fit."""
    step = backend.info.batch or 1
    for begin in range(0, len(image), step):
        end = min(begin + step, len(image))
        outputs = run_padded(backend, image[begin:end], superpixels[begin:end])
        for row in range(end - begin):
            yield {name: value[row] for name, value in outputs.items()}


def default_threads() -> int:
    """Cores this process may use (affinity and container quota), at most 8: the model is too small for more."""
    return min(available_cores(), 8)
