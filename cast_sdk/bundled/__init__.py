"""Files that come with the package: the model `cast_tiny` and a few photographs to check exports with."""

from __future__ import annotations

from pathlib import Path

from cast_sdk.errors import ArtifactError
from cast_sdk.images import images_in

FOLDER = Path(__file__).parent
MODEL = "cast_tiny.onnx"
WEIGHTS = "cast_tiny.safetensors"


def path(name: str) -> Path:
    """Path of a bundled file, such as "cast_tiny.onnx".

    Raises:
        ArtifactError: when this installation has no such file.
    """
    file = FOLDER / name
    if not file.is_file():
        raise ArtifactError(
            f"This installation has no bundled file {name}.",
            remedy="install cast-sdk again; or, in place of the bundled model, export one and name it: "
            "cast-export --ckpt CHECKPOINT --out MODEL.onnx",
        )
    return file


def photos() -> list[Path]:
    """The photographs, in the order of their names."""
    return images_in(FOLDER / "photos")
