"""Digests of what was downloaded, by address: `digests/` in the cache folder.

Nobody publishes the digests of the release's files. So the first download is trusted as far as the hub's own digest
goes, its SHA-256 is kept here, and what comes later must equal it.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from cast_sdk.errors import CheckpointError
from cast_sdk.system.caches import cache_folder, cache_room
from cast_sdk.system.files import atomic_write

_SHA256 = re.compile(r"[0-9a-f]{64}")


def read(uri: str) -> str | None:
    """The digest kept for an address, or None."""
    try:
        kept = json.loads((cache_folder() / "digests" / _file_name(uri)).read_text())
    except (OSError, ValueError):
        return None
    digest = str(kept.get("sha256", "")) if isinstance(kept, dict) and kept.get("uri") == uri else ""
    return digest if _SHA256.fullmatch(digest) else None


def check(uri: str, digest: str, stated: str = "", *, pinned: bool) -> None:
    """Compare a downloaded file's digest with what is known of it, and keep it.

    Args:
        uri: address of the file.
        digest: SHA-256 of what was downloaded.
        stated: SHA-256 as stated by whoever published it, or "".
        pinned: an address whose content must not change.

    Raises:
        CheckpointError: when it differs.
    """
    kept = read(uri)
    expected = stated or (kept if pinned else None)
    if expected and digest != expected:
        record = cache_folder() / "digests" / _file_name(uri)
        raise CheckpointError(
            f"{uri} is not the file that was published."
            if stated
            else f"{uri} is not the file that this machine downloaded first.",
            found=f"SHA-256 {digest[:12]}... instead of {expected[:12]}...",
            remedy="ask where it comes from; HF_ENDPOINT may name a mirror that serves another file"
            if stated
            else f"if its owner really replaced it, remove {record} and run again",
        )
    if kept != digest:
        with atomic_write(cache_room("digests") / _file_name(uri)) as temporary:
            Path(temporary).write_text(json.dumps({"uri": uri, "sha256": digest}, indent=1))


def _file_name(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:24] + ".json"
