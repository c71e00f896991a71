"""Paths, and the addresses that fsspec opens."""

from __future__ import annotations

import functools
import os
from typing import IO, Any

from cast_sdk.errors import InputError
from cast_sdk.system.files import kind_at
from cast_sdk.system.secrets import mask

_REACH = "check the path or address, its permissions and the network"


def source_of(name: str) -> str:
    """What opens a name from any folder: the address itself, or the absolute path.

    A name that stands for a file here is a path, whatever is in it.
    """
    return name if not name or (is_address(name) and not os.path.lexists(name)) else os.path.abspath(name)  # noqa: PTH100


def is_address(name: str) -> bool:
    """Whether a name is one that fsspec opens, and not a path; of what `source_of` gives it is always right."""
    return not name.startswith("/") and ("://" in name or "::" in name)


def check_address(address: str) -> None:
    """Refuse an address that holds a password or token: names of images are written into the data set.

    Raises:
        InputError: for such an address.
    """
    if mask(address, doubtful=False) != address:
        raise InputError(
            f"The address {address} holds a password or token, and would be written into the data set.",
            remedy="give credentials in the environment or in fsspec's configuration",
        )


def open_address(address: str) -> tuple[Any, str]:
    """fsspec's file system and path of an address.

    Raises:
        InputError: fsspec has no such protocol, or lacks the package for it.
    """
    import fsspec

    try:
        head, chain, rest = address.partition("::")
        if chain:
            protocol, _, path = head.partition("://")
            return _archive(protocol, rest), path
        fs, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise InputError(
            f"fsspec lacks a package that opens {address}.", found=str(error), remedy="pip install what it names"
        ) from error
    except ValueError as error:
        raise InputError(f"fsspec cannot open {address}.", found=str(error), remedy="check the address") from error
    except Exception as error:
        raise InputError(f"{address} cannot be opened.", found=said(error), remedy=_REACH) from error
    return fs, str(path)


@functools.lru_cache(maxsize=8)
def _archive(protocol: str, address: str) -> Any:
    """The file system inside another file, kept open: its files end with it."""
    import fsspec

    return fsspec.core.url_to_fs(f"{protocol}://::{address}")[0]


def address_of(fs: Any, path: str, like: str) -> str:
    """The address of a path of a file system that was opened as `like`: with its protocol and what follows `::`."""
    head, chain, rest = like.partition("::")
    protocol = head.partition("://")[0]
    return (str(fs.unstrip_protocol(path)) if not chain else f"{protocol}://{path}") + chain + rest


def open_source(name: str) -> IO[bytes]:
    """A file or address, as `source_of` gives it, open for reading.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        if is_address(name):
            fs, path = open_address(name)
            return fs.open(path, "rb")
        if kind_at(name) == "other":
            raise InputError(f"{name} is a pipe, socket or device.", remedy="name ordinary files")
        return open(name, "rb")  # noqa: PTH123
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"There is no file {name}.", remedy="check the path") from error
    except Exception as error:  # file systems of all kinds raise errors of all kinds
        raise InputError(f"{name} cannot be read.", found=said(error), remedy=_REACH) from error


def said(error: Exception) -> str:
    """What an error of a file system says."""
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
