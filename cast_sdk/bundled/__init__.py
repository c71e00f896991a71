"""Files that come with the package: the model `cast_tiny` and a few photographs to check exports with."""

from __future__ import annotations

from pathlib import Path

from cast_sdk.errors import InputError


def path(name: str) -> Path:
    """Path of a bundled file, such as "cast_tiny.onnx".

    Raises:
        InputError: when there is no such file.
    """
    folder = Path(__file__).parent
    file = folder / name
    if not file.is_file():
        have = ", ".join(sorted(p.name for p in folder.iterdir() if p.suffix in (".onnx", ".safetensors")))
        raise InputError("A bundled file is one of those in the package.", found=name, remedy=f"there are: {have}")
    return file
