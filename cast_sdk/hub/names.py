"""What a reference stands for: a published name, an hf:// address, or the path of a file of the user's.

cast_small.deit_in1k            published weights (cast_sdk.published)
cast_tiny.bundled               the weights that come with the package
hf://owner/repo[@rev]/file      a file on the hub
hf://owner/repo[@rev]           model.safetensors there, as push_to_hub writes it
anything else                   a path
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cast_sdk import bundled
from cast_sdk.errors import CheckpointError, InputError, MissingDependencyError
from cast_sdk.hub import download, records
from cast_sdk.published import PUBLISHED, Published
from cast_sdk.registry import list_models
from cast_sdk.spec import ModelSpec
from cast_sdk.system.files import kind_at, sha256

WEIGHTS = "model.safetensors"  # of a repository or folder that save_pretrained wrote
BUNDLED = "cast_tiny.bundled"
_NAMES = {entry.name: entry for entry in PUBLISHED}
_LIKE_A_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)?")
_LIST = "cast-doctor models lists the published weights"


@dataclass(frozen=True)
class Source:
    """Weights that are not a file of the user's."""

    name: str  # as people call it
    uri: str  # hf://owner/repository[@revision]/file; "" for the bundled weights
    published: Published | None = None

    @property
    def is_graph(self) -> bool:
        """True for an exported graph, which runs as it is."""
        return self.uri.endswith(".onnx")


def find(reference: str | os.PathLike[str]) -> Source | None:
    """The weights that a reference names, or None where it is the path of a file.

    A published name goes before a file of the same name; write ./NAME for the file.

    Raises:
        InputError: for what looks like a name and is none, with the nearest ones; for a malformed hf:// address.
    """
    if not isinstance(reference, (str, os.PathLike)):
        return None
    text = os.fspath(reference)
    if text.startswith(download.SCHEME):
        return Source(text, _with_file(text))
    if text == BUNDLED:
        return Source(text, "")
    if text in _NAMES:
        return source_of(_NAMES[text])
    if kind_at(text) == "nothing":
        _refuse_near_names(text)
    return None


def resolve(reference: str | os.PathLike[str]) -> tuple[Path, Source | None]:
    """The file of the weights that a reference stands for, and their source unless they are the user's own.

    A name's or address's file is downloaded unless it is here, a folder's is the one that `save_pretrained` wrote, and
    a path is itself, whether something stands there or not.

    Raises:
        As `find`, `get` and `local_weights`.
    """
    source = find(reference)
    if source is not None:
        return get(source), source
    path = Path(reference)
    return (local_weights(path) if kind_at(path) == "folder" else path), None


def credited(spec: ModelSpec, source: Source | None) -> ModelSpec:
    """The description with the source of its weights, unless it names one or they are the user's own."""
    return dataclasses.replace(spec, source=source.name) if source is not None and not spec.source else spec


def source_of(entry: Published) -> Source:
    """The source of published weights."""
    return Source(entry.name, entry.uri, entry)


def of_architecture(model: str) -> list[str]:
    """Names of the weights that a registered model can be had with."""
    names = [entry.name for entry in PUBLISHED if entry.model == model]
    return [*names, BUNDLED] if model == Path(bundled.MODEL).stem else names


def get(source: Source) -> Path:
    """The file of a source, downloaded unless it is here, its digest checked.

    Raises:
        CheckpointError: see `download.fetch`; for a published name also when the file is another than the one that was
            downloaded first (`records`).
    """
    if not source.uri:
        return bundled.path(bundled.WEIGHTS)
    path = download.fetch(source.uri)
    records.check(source.uri, download.digest(path), _stated(source), pinned=source.published is not None)
    return path


def known_digest(source: Source) -> str | None:
    """SHA-256 of a source's file as far as it can be told without a download: stated, bundled or downloaded before."""
    if not source.uri:
        return sha256(bundled.path(bundled.WEIGHTS))
    return _stated(source) or records.read(source.uri)


def get_newest(source: Source) -> tuple[Path | None, str]:
    """The file and its digest; without a file where huggingface_hub is gone and the digest is known.

    An address is looked up anew each time, since its owner may publish another version. A published name is not.

    Raises:
        As `get`.
    """
    digest = known_digest(source)
    if digest and (source.published is not None or not source.uri):
        return None, digest
    try:
        path = get(source)
    except MissingDependencyError:
        if digest is None:
            raise
        return None, digest
    return path, download.digest(path)


def describe_digest(entry: Published) -> str:
    """What is known of the digest of published weights, for a list."""
    if entry.sha256:
        return f"SHA-256 {entry.sha256}, as published"
    kept = records.read(entry.uri)
    return f"SHA-256 {kept}, kept from the first download" if kept else "SHA-256 not published: not verified"


def _stated(source: Source) -> str:
    return source.published.sha256 if source.published else ""


def _with_file(uri: str) -> str:
    """The address with a file: the one that `save_pretrained` writes where none is named."""
    parts = uri.removeprefix(download.SCHEME).rstrip("/").split("/")
    full = f"{download.SCHEME}{parts[0]}/{parts[1]}/{WEIGHTS}" if len(parts) == 2 and all(parts) else uri
    download.parse(full)
    return full


def _refuse_near_names(text: str) -> None:
    if not _LIKE_A_NAME.fullmatch(text):
        return
    if text in list_models():
        own = of_architecture(text)
        raise InputError(
            f"{text} names an architecture and no weights.",
            remedy=f"give one of: {', '.join(own)}"
            if own
            else f"no weights of it are published ({_LIST}); give the path of a checkpoint",
        )
    near = difflib.get_close_matches(text, [*_NAMES, BUNDLED], 3, 0.75)
    architecture = text.partition(".")[0]
    if "." in text and not near and architecture in list_models():
        near = of_architecture(architecture) or [name for name in _NAMES if name.startswith(f"{architecture}.")]
    if near:
        raise InputError(
            f"There are no published weights {text!r}, and no file of that name.",
            remedy=f"did you mean {' or '.join(near)}? {_LIST}",
        )


def local_weights(folder: Path) -> Path:
    """The weights in a folder that `save_pretrained` wrote.

    Raises:
        CheckpointError: when there are none.
    """
    file = folder / WEIGHTS
    if kind_at(file) != "file":
        raise CheckpointError(
            f"The checkpoint {folder} is a folder without {WEIGHTS}.",
            remedy="give the path of a .pth, .pth.tar or .safetensors file, or a folder that save_pretrained wrote",
        )
    return file
