"""Files of the hub by address: `hf://owner/repository/file`, through huggingface_hub (extra `hub`).

    path = fetch("hf://twke/CAST/snapshots/moco/imagenet1k/cast_small/checkpoint_0099.pth.tar")

Files land in huggingface_hub's own cache (HF_HOME), with its tokens, mirrors (HF_ENDPOINT) and offline switch
(HF_HUB_OFFLINE). Two things are added: a download that was killed goes on where it stopped, and the SHA-256 of each
file is compared with the hub's, kept, and checked again when the cached file has been touched since.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from cast_sdk.errors import CheckpointError, InputError, MissingDependencyError
from cast_sdk.system.files import atomic_write, sha256
from cast_sdk.system.installing import pip_install

SCHEME = "hf://"
DIGESTS = "cast_sdk.json"  # in the repository's cache folder: file -> [sha256, size, mtime in ns]
_NAME = re.compile(r"[A-Za-z0-9_]([\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)  # of an owner and of a repository
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRIES = 5  # of a download whose connection is closed too early


def parse(uri: str) -> tuple[str, str, str | None]:
    """Repository, file and revision of `hf://owner/repository[@revision]/path/to/file`.

    Raises:
        InputError: for anything else.
    """
    owner, _, rest = uri.removeprefix(SCHEME).partition("/")
    repository, _, file = rest.partition("/")
    repository, _, revision = repository.partition("@")
    named = _NAME.fullmatch(owner) and _NAME.fullmatch(repository)
    if not uri.startswith(SCHEME) or not named or not file or file.endswith("/") or ".." in file.split("/"):
        raise InputError(
            f"{uri!r} does not name weights on the hub.",
            remedy="write hf://owner/repository/path/to/file; cast-doctor models lists the published ones",
        )
    return f"{owner}/{repository}", file, revision or None


def fetch(uri: str) -> Path:
    """Path of a file of the hub, downloaded unless it is in the cache.

    A download that broke off is continued. The file's SHA-256 must equal the hub's; `digest(path)` reads it back.

    Raises:
        InputError: for a malformed name.
        MissingDependencyError: without huggingface_hub.
        CheckpointError: when the repository or file does not exist or needs a login, without a connection, on a full
            disk, or when the file is not what the hub has.
    """
    hub = import_hub()
    repository, file, revision = parse(uri)
    with _explained(hub, uri, repository, file):
        where = {"repo_id": repository, "filename": file, "revision": revision}
        reached = not _offline(hub) and _complete_blob(hub, repository, file, revision)
        path = Path(hub.hf_hub_download(**where, endpoint=endpoint(), local_files_only=not reached))
    _check_digest(path, uri)
    return path


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 that `fetch` kept for a file it returned."""
    _, key, kept = _kept(Path(path))
    if key not in kept:
        raise CheckpointError(f"No digest is kept for {os.fspath(path)}.", remedy="give the path that fetch() returned")
    return str(kept[key][0])


def import_hub() -> Any:
    """huggingface_hub, its telemetry off.

    Raises:
        MissingDependencyError: when it cannot be imported.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.file_download
        import huggingface_hub.utils
    except ImportError as error:
        raise MissingDependencyError(
            "huggingface_hub, which names and hf:// addresses of weights need, cannot be imported.",
            found=str(error),
            remedy=pip_install("hub"),
        ) from error
    return huggingface_hub


def endpoint() -> str | None:
    """Address of the hub where HF_ENDPOINT names another."""
    return os.environ.get("HF_ENDPOINT") or None


def _offline(hub: Any) -> bool:
    return bool(hub.constants.HF_HUB_OFFLINE) or os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES")


def _complete_blob(hub: Any, repository: str, file: str, revision: str | None) -> bool:
    """Put the file's content into the cache's `blobs/`, continuing a partial download of the same content.

    huggingface_hub then finds it there and only adds its links.

    Returns:
        False when the hub does not answer.
    """
    url = hub.hf_hub_url(repository, file, revision=revision, endpoint=endpoint())
    try:
        metadata = hub.get_hf_file_metadata(url)
    except Exception as error:
        if _is_connection_error(hub, error):
            return False
        raise
    folder = Path(hub.constants.HF_HUB_CACHE) / hub.file_download.repo_folder_name(
        repo_id=repository, repo_type="model"
    )
    blob = folder / "blobs" / str(metadata.etag)
    if blob.exists() or not metadata.etag or not metadata.size:
        return True
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(f"{blob.name}.cast_sdk.partial")
    with hub.utils.WeakFileLock(f"{partial}.lock"):
        if blob.exists():
            return True
        with partial.open("ab") as target:
            have = target.tell()
            if have > metadata.size:
                target.seek(have := 0)
                target.truncate()
            with _progress(hub, target, file.rpartition("/")[2], have, metadata.size) as counted:
                _get(hub, metadata, counted)
        if _SHA256.fullmatch(metadata.etag) and sha256(partial) != metadata.etag:
            partial.unlink()
            raise CheckpointError(
                f"The file downloaded from {url} does not have the SHA-256 that the hub states.",
                remedy="run the command again; if it repeats, the mirror or a proxy changes the file",
            )
        partial.replace(blob)
    Path(f"{partial}.lock").unlink(missing_ok=True)
    return True


def _get(hub: Any, metadata: Any, target: Any) -> None:
    """Append to the file what it lacks of its content.

    Older versions of huggingface_hub do not take up a connection that was closed too early, so that is done here.
    """
    for left in reversed(range(_TRIES)):
        try:
            hub.file_download.http_get(
                metadata.location,
                target,
                resume_size=target.tell(),
                headers=hub.utils.build_hf_headers(),
                expected_size=metadata.size,
            )
            return
        except Exception as error:
            if not left or target.tell() >= metadata.size or not _is_cut_short(hub, error):
                raise
            time.sleep(1)


class _Counted:
    """A file that tells how much was written to it."""

    def __init__(self, file: BinaryIO, count: Callable[[int], None]) -> None:
        self._file, self._count = file, count

    def write(self, data: bytes) -> int:
        self._count(len(data))
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def _progress(hub: Any, file: BinaryIO, label: str, have: int, size: int) -> Iterator[Any]:
    """The file with a bar on stderr, in a terminal and unless the log was told to be quiet (cast-segment -q)."""
    import click

    hidden = not sys.stderr.isatty() or logging.getLogger("cast_sdk").level > logging.INFO
    own = not hub.utils.are_progress_bars_disabled()
    if own:
        hub.utils.disable_progress_bars()
    try:
        title = f"{label} ({size / 1e6:.0f} MB)"
        with click.progressbar(length=size, label=title, file=sys.stderr, hidden=hidden) as bar:
            bar.update(have)
            yield _Counted(file, bar.update)
    finally:
        if own:
            hub.utils.enable_progress_bars()


def _is_connection_error(hub: Any, error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}  # of httpx or requests, whichever this version uses
    return bool(names & {"TransportError", "ConnectionError", "Timeout"})


def _is_cut_short(hub: Any, error: BaseException) -> bool:
    """Whether fewer bytes came than were announced: an OSError, and none of the disk, in versions built on requests."""
    other = isinstance(error, hub.errors.HfHubHTTPError) or _is_connection_error(hub, error)
    return isinstance(error, OSError) and error.errno is None and not other


def _kept(path: Path) -> tuple[Path, str, dict[str, list[Any]]]:
    """The digest file of a cached file's repository, the file's key in it, and its content."""
    snapshots = next((parent for parent in path.parents if parent.name == "snapshots" and _is_cache(parent)), None)
    folder = snapshots.parent if snapshots else path.parent
    record = folder / DIGESTS
    try:
        kept = json.loads(record.read_text())
    except (OSError, json.JSONDecodeError):
        kept = {}
    return record, path.relative_to(folder).as_posix(), kept


def _is_cache(snapshots: Path) -> bool:
    return snapshots.parent.name.startswith("models--")


def _check_digest(path: Path, uri: str) -> None:
    record, key, kept = _kept(path)
    status = path.stat()
    if key in kept and kept[key][1:] == [status.st_size, status.st_mtime_ns]:
        return
    now = sha256(path)
    blob = path.resolve().name
    expected = kept[key][0] if key in kept else blob if _SHA256.fullmatch(blob) else now
    if now != expected:
        raise CheckpointError(
            f"The cached file {path} is not the one that was downloaded.",
            found=f"SHA-256 {now[:12]}... instead of {expected[:12]}...",
            remedy=f"remove {path.resolve()} and run again: {uri} is downloaded anew",
        )
    kept[key] = [now, status.st_size, status.st_mtime_ns]
    with atomic_write(record) as temporary:
        temporary.write_text(json.dumps(kept, indent=1, sort_keys=True))


@contextlib.contextmanager
def _explained(hub: Any, uri: str, repository: str, file: str) -> Iterator[None]:
    errors = hub.errors
    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"The terms of {repository} have not been accepted.",
            remedy=f"accept them on the hub's page of {repository}, then: hf auth login",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"The hub has no {repository}, or it is not open to you.",
            remedy="check the name (cast-doctor models lists the published weights); for a private one: hf auth login",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"The revision in {uri} does not exist.", remedy="leave @revision out for the newest version"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{uri} is not in the cache, and "
            + ("HF_HUB_OFFLINE is set." if _offline(hub) else "the hub does not answer."),
            remedy="connect once (HF_ENDPOINT names a mirror), or copy the file here and give its path",
        ) from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(
            f"There is no {file} in {repository}.",
            remedy=_nearest(hub, repository, file),
        ) from error
    except errors.HfHubHTTPError as error:
        raise CheckpointError(f"The hub refused {uri}.", found=_first_line(error), remedy="try again later") from error
    except OSError as error:
        raise CheckpointError(
            f"{uri} could not be downloaded and stored.",
            found=_first_line(error),
            remedy="check connection and free space (HF_HOME moves it), and run again: it goes on where it stopped",
        ) from error
    except Exception as error:
        if not _is_connection_error(hub, error):
            raise
        raise CheckpointError(
            f"The download of {uri} broke off.",
            found=_first_line(error),
            remedy="check the connection and run again: it goes on where it stopped",
        ) from error


def _nearest(hub: Any, repository: str, file: str) -> str:
    """The repository's files whose names are nearest."""
    try:
        files = hub.HfApi(endpoint=endpoint()).list_repo_files(repository)
    except Exception:  # the message must not fail where the listing does
        return "cast-doctor models lists the published files"
    folder = [name for name in files if name.startswith(file.rpartition("/")[0] + "/")]
    near = difflib.get_close_matches(file, files, 5, 0.5)
    return "it has: " + ", ".join((folder or near or sorted(files))[:8])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
