"""No password is printed."""

from __future__ import annotations

import pytest

from cast_sdk.errors import CastError, InputError
from cast_sdk.system.secrets import mask

HIDDEN = ["p@ss", "a#b", "a/b", "a[b", "a?z", "a:b", "geheim", "x&y=z"]


@pytest.mark.parametrize("password", HIDDEN)
@pytest.mark.parametrize(
    "text",
    [
        "rtsp://me:{}@10.0.0.2:554/a?b=c",
        "there is no video from http://me:{}@cam/live within 5 s",
        "gst://rtspsrc location=rtsp://me:{}@cam/1 ! decodebin",
        "rtsp://:{}@cam",
    ],
)
def test_passwords_in_addresses(text: str, password: str):
    masked = mask(text.format(password))
    assert password not in masked and ":***@" in masked
    assert masked.startswith(text.partition("{")[0])


@pytest.mark.parametrize(
    "text",
    [
        "http://cam/live?user=me&password=geheim&x=1",
        "http://cam/live?TOKEN=geheim",
        "http://cam/live?access_token=geheim#x",
        "gst://rtspsrc location=rtsp://cam user-id=me user-pw=geheim ! decodebin",
        'gst://rtspsrc user-pw="geheim mit Leerzeichen" ! decodebin',
        "https://hub/x?api_key=geheim",
    ],
)
def test_values_with_a_telling_name(text: str):
    masked = mask(text)
    assert "geheim" not in masked and "=***" in masked and masked.startswith(text[:8])


@pytest.mark.parametrize(
    "text",
    [
        "clip@home.mp4",
        "rtsp://10.0.0.2:554/a?b=c",
        "a@b",
        "level=2, passes=15",
        "bypass=1 compass=2",
        "http://[::1]:80/x",
    ],
)
def test_everything_else_stays(text: str):
    assert mask(text) == text


def test_every_error_is_masked():
    error = InputError("No video from rtsp://me:a#b@cam.", found="rtsp://me:a#b@cam", remedy="ffplay rtsp://me:a#b@cam")
    assert "a#b" not in str(error) and "a#b" not in f"{error.problem}{error.found}{error.remedy}"
    assert isinstance(error, CastError)
