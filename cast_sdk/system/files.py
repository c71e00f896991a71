"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import platform
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from cast_sdk.arguments import as_path
from cast_sdk.errors import CastError, ExportError, InputError

# What the operating system says while something is written, and what helps.
_WHILE_WRITING = {
    errno.ENOSPC: "free space or choose another folder",
    errno.EDQUOT: "free space or ask for a larger quota",
    errno.EFBIG: "raise the limit (ulimit -f) or choose another file system",
    errno.EIO: "check the disk (dmesg) or choose another one",
    errno.EROFS: "choose a folder that can be written to",
}
# What it says when a file is made or named.
_REMEDIES = _WHILE_WRITING | {
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.ENOENT: "create the folder or choose another one",
    errno.ENOTDIR: "choose a path below a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "name a file in it",
    errno.ELOOP: "choose a path without links that lead to themselves",
}
_written: set[str] = set()  # temporary files that this process writes now


_LOCK_SECONDS = 1.0  # what a killed process started just before its end may hold its lock a moment longer


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a small file, such as a list of names, without a byte order mark.

    Raises:
        InputError: it is missing, no ordinary file, cannot be read, or is not UTF-8.
    """
    name = os.fspath(path)
    kind = kind_at(path)
    if kind == "nothing":
        raise InputError(f"There is no file {name}.", remedy="check the path")
    if kind != "file":
        raise InputError(f"{name} is a folder, pipe, socket or device.", remedy="name an ordinary file")
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{name} cannot be read.", found=error.strerror, remedy="check its permissions") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not text in UTF-8.", found=str(error), remedy="save it as UTF-8") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a small JSON file holds.

    Raises:
        InputError: as `read_text`, or it is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{os.fspath(path)} is not JSON.", found=str(error), remedy="check that it is the file meant, and complete"
        ) from error


def read_csv(path: str | os.PathLike[str], delimiter: str = ",") -> list[list[str]]:
    """The rows of a small CSV file.

    Raises:
        InputError: as `read_text`, or it is not CSV.
    """
    text = read_text(path)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise InputError(
            f"{os.fspath(path)} is not CSV.", found=str(error), remedy="save it as comma-separated text in UTF-8"
        ) from error


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that is renamed to it on success and removed on failure.

    What a killed process of this machine left behind for the same file is removed first.

    Raises:
        ExportError: the folder does not exist, or the file cannot be written there: no space, no permission, ...
    """
    target = writable_target(path)
    with writing(target):
        remove_abandoned(target)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=".tmp")
    temporary = Path(name)
    _written.add(temporary.name)
    try:
        os.close(handle)
        with writing(target, _WHILE_WRITING):
            yield temporary
        with writing(target):
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _written.discard(temporary.name)


def kind_at(path: str | os.PathLike[str]) -> Literal["file", "folder", "other", "nothing"]:
    """What stands at a path, links followed; "nothing", too, for names that no file can have."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return "nothing"
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def check_ordinary(path: str | os.PathLike[str]) -> None:
    """Refuse to open what may never end: to read a pipe waits for somebody to write into it.

    Raises:
        InputError: a pipe, socket or device stands there.
    """
    if kind_at(path) == "other":
        raise InputError(f"{os.fspath(path)} is a pipe, socket or device.", remedy="name an ordinary file")


def writable_target(path: str | os.PathLike[str]) -> Path:
    """The path, if a file may stand there: no folder, no device, no NUL in its name.

    Raises:
        InputError: it is no path at all.
        ExportError: otherwise.
    """
    target = as_path(path)
    if "\0" in str(target):
        raise ExportError(
            "The name of the output holds a NUL character.", found=repr(str(target)), remedy="choose another name"
        )
    with writing(target):
        if target.is_dir():
            raise ExportError(f"The output {target} is a folder.", remedy="name a file in it")
        if target.exists() and not target.is_file():
            raise ExportError(f"The output {target} is a device, pipe or socket.", remedy="name an ordinary file")
    return target


def check_writable(path: str | os.PathLike[str]) -> None:
    """Try, before long work, whether a file can be written at a path. Nothing is left there.

    Raises:
        ExportError: see `atomic_write`.
    """
    target = writable_target(path)
    with writing(target):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_prefix(target), suffix=".tmp")
        os.close(handle)
        Path(name).unlink()


def check_replaceable(path: str | os.PathLike[str], read: Callable[[Path], object]) -> None:
    """Refuse to replace a file that this package did not write.

    Args:
        path: of the output; where nothing stands there, all is well.
        read: reads what our files carry and raises a CastError for others.

    Raises:
        ExportError: naming the file.
    """
    target = Path(path)
    if not target.exists():
        return
    try:
        read(target)
    except CastError as error:
        raise ExportError(
            f"{target} is there already and was not written by this package, so it is not replaced.",
            remedy="choose another --out or folder, or move the file away",
        ) from error


@contextmanager
def writing(target: str | os.PathLike[str], remedies: Mapping[int, str] = _REMEDIES) -> Iterator[None]:
    """Report what goes wrong while `target` is written as an ExportError that names it and the reason.

    Args:
        target: the file.
        remedies: errors of the operating system that are reported so, and what helps; others pass as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno not in remedies:
            raise
        raise ExportError(
            f"{os.fspath(target)} cannot be written.",
            found=error.strerror,
            remedy=remedies[error.errno],
        ) from error


def lock(file: IO[Any], folder: str | os.PathLike[str]) -> None:
    """Keep other processes from writing results into a folder while `file`, in it, is open.

    Raises:
        InputError: another process has it locked.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nothing keeps two processes apart there
        return
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"Another process writes its results into {os.fspath(folder)} now.",
                    remedy="wait for it, or choose another --out",
                ) from error
            time.sleep(0.05)
        except OSError:
            return  # a file system without locks


def remove_abandoned(target: Path) -> None:
    """Remove temporary files of `target` whose process, on this machine, has ended without removing them."""
    # A writer of films needs a suffix of its own behind the temporary name.
    start = re.escape(f".{_short(target.name)}.{_host()}-")
    ours = re.compile(rf"({start}(\d+)\.[^.]*\.tmp)(\.\w+)?", re.DOTALL)
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        left = [(entry.name, found) for entry in entries if (found := ours.fullmatch(entry.name))]
        for name, found in left:
            process = int(found[2])
            # In a container every start has the same number, so a file of this number may be an earlier process's.
            if found[1] not in _written if process == os.getpid() else not _running(process):
                with contextlib.suppress(OSError):
                    (target.parent / name).unlink(missing_ok=True)


def _prefix(target: Path) -> str:
    return f".{_short(target.name)}.{_host()}-{os.getpid()}."


def _short(name: str) -> str:
    """The name, cut so that the temporary one is no longer than a file system allows (255 bytes)."""
    kept = os.fsencode(name)[:180]
    return os.fsdecode(kept)


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
