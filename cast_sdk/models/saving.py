"""A model as files: our own format, and a folder or repository of the hub."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cast_sdk.arguments import as_path
from cast_sdk.artifact import SPEC_KEY
from cast_sdk.errors import CheckpointError, InputError
from cast_sdk.hub.cards import card
from cast_sdk.hub.names import WEIGHTS
from cast_sdk.hub.upload import upload
from cast_sdk.system.files import atomic_write, check_replaceable, writing

if TYPE_CHECKING:
    import torch

    from cast_sdk.models.base import Model

CONFIG, CARD = "config.json", "README.md"  # beside the weights
CONFIG_KEY = "cast_sdk"


def save_native(model: Model, path: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
    """Write our own format: safetensors with the ModelSpec as metadata, each tensor once.

    Args:
        dtype: store floating tensors in this type, e.g. torch.float16; they are loaded as float32.
    """
    from safetensors.torch import save_file

    spec = model.spec
    state: dict[str, Any] = {}
    seen: set[int] = set()
    for key, value in model.state_dict().items():
        if value.numel() and value.data_ptr() in seen:
            continue
        seen.add(value.data_ptr())
        value = value.detach().to("cpu")
        state[key] = (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous()
    with atomic_write(path) as temporary:
        save_file(state, temporary, metadata={SPEC_KEY: spec.to_json(), "format": "pt"})


def save_pretrained(model: Model, folder: str | os.PathLike[str]) -> None:
    """Write a model into a folder: `model.safetensors`, its description `config.json` and a model card `README.md`.

    `load_model(folder)` and `Model.from_pretrained(folder)` open it. A card that is there already is left as it is.

    Raises:
        ExportError: for a folder that cannot be written, or files of these names that this package did not write.
    """
    target = as_path(folder, "folder")
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
    weights, config, readme = target / WEIGHTS, target / CONFIG, target / CARD
    check_replaceable(weights, _own_weights)
    check_replaceable(config, _own_config)
    save_native(model, weights)
    with atomic_write(config) as temporary:
        temporary.write_text(json.dumps({CONFIG_KEY: model.spec.to_dict()}, indent=2) + "\n", encoding="utf-8")
    if not readme.exists():
        with atomic_write(readme) as temporary:
            temporary.write_text(card(model.spec), encoding="utf-8")


def push_to_hub(
    model: Model,
    repository: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload what `save_pretrained` writes into a repository of the hub (extra `hub`), made where it is not there.

    A model card that the repository has already stays. HF_ENDPOINT names another hub.

    Args:
        model: what to upload.
        repository: "owner/name".
        private: for a new repository; None: what the owner's account does by default.
        revision: branch to write to; default "main".
        message: of the commit.
        token: of the hub; default: the one that `hf auth login` kept.
        create_pr: open a pull request instead of writing to the branch.

    Returns:
        The address that `load_model` takes: "hf://owner/name".

    Raises:
        MissingDependencyError: without huggingface_hub.
        InputError: for a malformed name of a repository.
        ExportError: when the hub refuses, or does not answer.
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise InputError(f"{repository!r} is not the name of a repository.", remedy="write owner/name")
    with tempfile.TemporaryDirectory(prefix="cast_sdk-") as folder:
        save_pretrained(model, folder)
        upload(
            folder,
            repository,
            keep=CARD,
            private=private,
            revision=revision,
            message=message or f"Add {model.spec.name}",
            token=token,
            create_pr=create_pr,
        )
    return f"hf://{repository}"


def _own_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as reader:
            metadata = reader.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a .safetensors file.") from error
    if SPEC_KEY not in metadata:
        raise CheckpointError(f"{path} carries no model description.")


def _own_config(path: Path) -> None:
    try:
        known = CONFIG_KEY in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not JSON.") from error
    if not known:
        raise CheckpointError(f"{path} is not a description of this package.")
