"""NumPy files of ours and of strangers: plain arrays, no code."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.system.files import kind_at

# All that NumPy's reader raises for a header or a body that is none.
_DAMAGED = (
    OSError, ValueError, EOFError, MemoryError, OverflowError, TypeError, SyntaxError, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_array(path: Path, what: str = "no array", remedy: str = "remove the file and make it again") -> Any:
    """The array of a `.npy` file.

    Args:
        path: of the file.
        what: it holds instead, for the message: "no teacher's scores".
        remedy: what makes it.

    Raises:
        InputError: it is missing, damaged, or holds Python objects, which would run code.
    """
    found = _load(path, what, remedy)
    if not isinstance(found, np.ndarray):
        found.close()
        raise InputError(f"{path} holds {what}.", found="an archive (.npz)", remedy=remedy)
    return found


def read_arrays(
    path: Path, names: Sequence[str], what: str = "no such arrays", remedy: str = "remove the file and make it again"
) -> list[npt.NDArray[Any]]:
    """Arrays of an `.npz` file by their names; errors as of `read_array`, and one for a name that it does not have."""
    archive = _load(path, what, remedy)
    if isinstance(archive, np.ndarray):
        raise InputError(f"{path} holds {what}.", found="a single array (.npy)", remedy=remedy)
    with archive:
        try:
            return [archive[name] for name in names]
        except (*_DAMAGED, KeyError, NotImplementedError) as error:
            raise InputError(f"{path} holds {what}.", found=_said(error), remedy=remedy) from error


def _load(path: Path, what: str, remedy: str) -> Any:
    if kind_at(path) != "file":
        raise InputError(f"{path} holds {what}.", found="no ordinary file", remedy=remedy)
    try:
        return np.load(path, allow_pickle=False)
    except _DAMAGED as error:
        raise InputError(f"{path} holds {what}.", found=_said(error), remedy=remedy) from error


def _said(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
