"""A folder to a repository of the hub, through huggingface_hub (extra `hub`)."""

from __future__ import annotations

import os
from typing import Any

from cast_sdk.errors import ExportError
from cast_sdk.hub.download import endpoint, import_hub


def upload(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    keep: str,
    private: bool | None,
    revision: str | None,
    message: str,
    token: str | None,
    create_pr: bool,
) -> None:
    """Upload a folder; the repository is made where it is not there, and its file `keep` is not replaced.

    Raises:
        MissingDependencyError: without huggingface_hub.
        ExportError: when the hub refuses or does not answer.
    """
    hub = import_hub()
    api = hub.HfApi(endpoint=endpoint(), token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        there = api.file_exists(repository, keep, revision=revision)
        api.upload_folder(
            repo_id=repository,
            folder_path=os.fspath(folder),
            revision=revision,
            commit_message=message,
            create_pr=create_pr,
            ignore_patterns=[keep] if there else None,
        )
    except Exception as error:
        raise _explained(error, repository) from error


def _explained(error: Exception, repository: str) -> ExportError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    found = (str(error).strip().splitlines() or [type(error).__name__])[0]
    remedies: dict[Any, str] = {
        401: "log in: hf auth login, or give token=",
        403: f"use a token that may write to {repository}",
        404: "check the name of the repository and the revision",
    }
    remedy = remedies.get(status, "check the connection and run again")
    return ExportError(f"The model could not be uploaded to {repository}.", found=found, remedy=remedy)
