"""A checkpoint file as a dictionary of tensors and plain values; no code from the file is run."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from cast_sdk.arguments import as_path
from cast_sdk.artifact import SPEC_KEY
from cast_sdk.errors import CheckpointError
from cast_sdk.system.files import kind_at


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The dictionary in a checkpoint file, tensors on the CPU, without running code from it.

    Raises:
        CheckpointError: when the file is missing, a folder, empty, truncated, not a checkpoint, or holds objects other
            than tensors, plain containers and an argparse namespace.
    """
    file = as_path(path)
    kind = kind_at(file)
    if kind != "file":
        is_what = {"folder": "is a folder", "nothing": "does not exist", "other": "is a pipe, socket or device"}[kind]
        raise CheckpointError(
            f"The checkpoint {file} {is_what}.", remedy="give the path of a .pth, .pth.tar or .safetensors file"
        )
    if file.stat().st_size == 0:
        raise CheckpointError(f"The checkpoint {file} is empty (0 bytes).", remedy="copy or download the file again")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    _check_beginning(file)
    _check_pytorch(file)
    try:
        with torch.serialization.safe_globals([argparse.Namespace, *_numpy_scalars()]):
            raw = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"Unsupported (?:global|class)[^\n]*?(?= was not|\n|$)", str(error))
        if "Unsupported operand" in str(error):
            raise CheckpointError(
                f"The checkpoint {file} was saved with a pickle protocol that cannot be read without running code.",
                found=first_line(error),
                remedy="save it again where it came from: torch.save(object, path), without pickle_protocol",
            ) from error
        raise CheckpointError(
            f"The checkpoint {file} holds Python objects, which could run code when they are loaded."
            if refused
            else f"The checkpoint {file} is not a complete PyTorch file.",
            found=refused[0] if refused else first_line(error),
            remedy="save its tensors alone: torch.save({'state_dict': model.state_dict()}, 'clean.pth')"
            if refused
            else "copy or download the file again",
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile, LookupError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"The checkpoint {file} is not a complete PyTorch file.",
            found=f"{file.stat().st_size} bytes; {first_line(error)}",
            remedy="copy or download the file again",
        ) from error
    if not isinstance(raw, dict):
        raise CheckpointError(
            f"The checkpoint {file} holds a {type(raw).__name__}, not a dictionary.",
            remedy="give a checkpoint of CAST or one of its baselines",
        )
    return raw


def _check_beginning(file: Path) -> None:
    """Name what is often found under the name of a checkpoint that was downloaded.

    Raises:
        CheckpointError: a pointer of Git LFS, or a web page.
    """
    with file.open("rb") as reader:
        head = reader.read(256).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"The checkpoint {file} is a Git LFS pointer and not the file itself.",
            remedy="git lfs install && git lfs pull, or download the file itself",
        )
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(
            f"The checkpoint {file} is a web page.",
            remedy="download the file itself: the address of its page was saved in its place",
        )


def _check_pytorch(file: Path) -> None:
    """Refuse what torch would take for a pickle: it writes zip archives, and pickles of protocol 2 before 1.6.

    Raises:
        CheckpointError: the file begins otherwise.
    """
    with file.open("rb") as reader:
        head = reader.read(8)
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise CheckpointError(
            f"The checkpoint {file} is not a PyTorch file.",
            found=f"it begins with {head!r}",
            remedy="give what torch.save wrote (.pth), or name a .safetensors file so",
        )


def _numpy_scalars() -> list[Any]:
    """What NumPy numbers among the metrics of a checkpoint are made from; none of it runs code."""
    import numpy as np

    scalar = (getattr(np, "_core", None) or np.core).multiarray.scalar
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")  # before NumPy 2 and since
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")]
    return [*((scalar, name) for name in names), np.dtype, *kinds]


def _read_safetensors(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    _check_beginning(file)

    try:
        with safe_open(file, framework="pt") as reader:
            metadata = reader.metadata() or {}
            state = {key: reader.get_tensor(key) for key in reader.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise CheckpointError(
            f"The checkpoint {file} is not a complete .safetensors file.",
            found=str(error),
            remedy="copy or download the file again",
        ) from error
    raw: dict[str, Any] = {"model": state}
    if SPEC_KEY in metadata:
        raw[SPEC_KEY] = metadata[SPEC_KEY]
    return raw


def named(path: str | os.PathLike[str]) -> str:
    """The checkpoint in a sentence, with its path where it has one."""
    return f"The checkpoint {os.fspath(path)}" if path else "The checkpoint"


def first_line(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"\s*(In PyTorch 2\.6, we changed|Re-running `torch\.load`).*", "", text)[:300]  # advice to run code
