"""Passwords and tokens in text that people will read."""

from __future__ import annotations

import re

# scheme://user:password@host. A password may hold any character but white space, so it ends at the last @ of the word.
# The colon may be written as %3A.
_IN_ADDRESS = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://(?:(?!%3a)[^\s:/@])*)(?::|%3a)\S*@")
# scheme://token@host: long, and no name that people give to users.
_AS_USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)(?=[\w~.%-]*\d)[\w~.%-]{20,}@")
_NAMES = (
    r"[\w-]*(?:passw(?:or)?d|passphrase|secret|token|credentials?|api[-_]?key|access[-_]?key(?:[-_]?id)?|"
    r"private[-_]?key|signature)|pass|pwd|pw|user-pw|auth|sig|jwt"
)
# In quotes, also where the second one is cut off; else one word, whose last quote is that of the text around it.
_VALUE = r"(?:\"[^\"\n]*(?:\"|$)|'[^'\n]*(?:'|$)|[^\s&#;,!]*[^\s&#;,!'\"])"
# password=..., &token=...; GStreamer's user-pw = (string)"..."; --token ...; "token": "..." of JSON
_NAMED = re.compile(rf"(?i)(?<![\w-])((?:--)?(?:{_NAMES}))(\s*=\s*(?:\(\w+\)\s*)?|[\"']\s*:\s*(?=[\"'])){_VALUE}")
_OPTION = re.compile(rf"(?i)(?<!\S)(--(?:{_NAMES})\s+)(?!-)(?-i:(?![A-Z]+(?:\s|$))){_VALUE}")  # not: --token TEXT
# Names that other things have too: of objects in a store, of countries.
_KEY = re.compile(rf"(?i)([?&](?:key|code|sas)=){_VALUE}")
_LONG_KEY = re.compile(r"(?i)([?&](?:key|code|sas)=)[\w+/=%~-]{20,}(?=[\s&#;,!'\"]|$)")
_BEARER = re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?|bearer\s+)([\w+/=.~-]{8,})")


def mask(text: str, *, doubtful: bool = True) -> str:
    """The text with `***` in the place of every password and token in it.

    Covers the password of an address (`rtsp://me:...@camera/1`, whatever characters it holds), a token in the place of
    its user, values with a telling name (`?token=...`, `user-pw=...`, `"api_key": "..."`, `--token ...`, signatures of
    addresses that are signed) and headers of authorization, anywhere in a text.

    Args:
        doubtful: also short values of `?key=` and `?code=`, which may be names.
    """
    if "@" in text:
        text = _IN_ADDRESS.sub(r"\1:***@", text)
        text = _AS_USER.sub(r"\1***@", text)
    if "=" in text or ":" in text:
        text = (_KEY if doubtful else _LONG_KEY).sub(r"\1***", _NAMED.sub(r"\1\2***", text))
    if "--" in text:
        text = _OPTION.sub(r"\1***", text)
    return _BEARER.sub(r"\1***", text)
