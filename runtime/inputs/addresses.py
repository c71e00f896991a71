"""Images behind http and https addresses, within limits of size, time and redirects.

An address is fetched by this machine with all that it may reach. A service must not hand on addresses of strangers.
"""

from __future__ import annotations

import queue
import re
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from cast_sdk.errors import InputError, TooLargeError
from cast_sdk.system.secrets import mask

MAX_BYTES = 64 * 2**20
SECONDS = 30.0  # for all of it
SILENCE = 10.0  # without a byte
MAX_REDIRECTS = 5
_ADDRESS = re.compile(r"(?i)https?://")


def is_address(text: str) -> bool:
    """Whether a text is an http or https address."""
    return bool(_ADDRESS.match(text))


def download(
    address: str, *, max_bytes: int = MAX_BYTES, seconds: float = SECONDS, max_redirects: int = MAX_REDIRECTS
) -> bytes:
    """The content behind an address. What it is, its bytes tell, and not the type that the server states.

    Raises:
        TooLargeError: more than `max_bytes`.
        InputError: no answer in time, an error of the server, too many redirects or one to another protocol.
    """
    answer: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    ends = time.monotonic() + seconds

    def work() -> None:
        try:
            answer.put(_read(address, max_bytes, max_redirects, ends))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=work, daemon=True, name="cast_sdk-download").start()
    try:
        got = answer.get(timeout=seconds)
    except queue.Empty:
        got = TimeoutError()
    if isinstance(got, bytes):
        return got
    raise _explained(got, address, seconds) from got


def _read(address: str, max_bytes: int, max_redirects: int, ends: float) -> bytes:
    opener = urllib.request.build_opener(_Redirects(max_redirects))
    request = urllib.request.Request(address, headers={"User-Agent": "cast_sdk", "Accept": "image/*,*/*;q=0.5"})
    parts, size = [], 0
    with opener.open(request, timeout=SILENCE) as response:
        stated = response.headers.get("Content-Length", "")
        while part := response.read1(1 << 16):
            size += len(part)
            if size > max_bytes or (stated.isdecimal() and int(stated) > max_bytes):
                raise TooLargeError(
                    f"The image {mask(address)} has more than {max_bytes / 2**20:.3g} MiB.",
                    remedy="download it yourself and give the file",
                )
            if time.monotonic() > ends:
                raise TimeoutError
            parts.append(part)
        if stated.isdecimal() and size < int(stated):
            raise InputError(
                f"The image {mask(address)} ended early.", found=f"{size} of {stated} bytes", remedy="try again"
            )
    return b"".join(parts)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """So many, and to http and https only."""

    def __init__(self, most: int) -> None:
        self.left = most

    def redirect_request(self, request: Any, file: Any, code: int, message: str, headers: Any, target: str) -> Any:
        self.left -= 1
        if self.left < 0:
            raise InputError(f"The address {mask(request.full_url)} redirects too often.", remedy="give the final one")
        if not is_address(target):
            raise InputError(f"The address {mask(request.full_url)} redirects to another protocol.", found=mask(target))
        return super().redirect_request(request, file, code, message, headers, target)


def _explained(error: Exception, address: str, seconds: float) -> InputError:
    if isinstance(error, InputError):
        return error
    if isinstance(error, urllib.error.HTTPError):
        return InputError(
            f"The server gave no image for {mask(address)}.",
            found=f"{error.code} {mask(str(error.reason))}",
            remedy="open the address in a browser",
        )
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return InputError(
            f"The image {mask(address)} did not come in time.",
            found=f"limits: {seconds:g} s in all, {SILENCE:g} s without a byte",
            remedy="download it yourself and give the file",
        )
    found = str(reason) or type(reason).__name__
    kind = "address" if isinstance(error, (ValueError, HTTPException)) else "server"
    return InputError(f"The image {mask(address)} cannot be fetched.", found=found, remedy=f"check the {kind}")
