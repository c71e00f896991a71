"""Passwords and tokens in text that people will read."""

from __future__ import annotations

import re

# scheme://user:password@host. A password may hold any character but white space, so it ends at the last @ of the word.
_IN_ADDRESS = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/@]*):\S*@")
# password=..., &token=..., and GStreamer's user-pw=...
_NAMED = re.compile(
    r"(?i)(?<![\w-])((?:[\w-]*(?:passw(?:or)?d|passphrase|secret|token|credentials?|api[-_]?key)|pass|pwd|pw|user-pw|auth)=)"
    r"(\"[^\"]*\"|'[^']*'|[^\s&#;,!]+)"
)


def mask(text: str) -> str:
    """The text with `***` in the place of every password and token in it.

    Covers the password of an address (`rtsp://me:...@camera/1`, whatever characters it holds) and values with a telling
    name (`?token=...`, `user-pw=...`), anywhere in a text.
    """
    if "@" in text:
        text = _IN_ADDRESS.sub(r"\1:***@", text)
    if "=" in text:
        text = _NAMED.sub(r"\1***", text)
    return text
