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
        "RTSPS://me:{}@cam",
        "('http://me:{}@cam/live', 3)",
        "srt://me%3A{}@cam",
        "rtsp://me%40home:{}@cam/1",
        "http://u%20x:{}@cam",
    ],
)
def test_passwords_in_addresses(text: str, password: str):
    masked = mask(text.format(password))
    assert password not in masked and ":***@" in masked
    assert masked.startswith(text.partition("{")[0].replace("%3A", ":"))


@pytest.mark.parametrize(
    "text",
    [
        "http://cam/live?user=me&password=geheim&x=1",
        "http://cam/live?TOKEN=geheim",
        "http://cam/live?access_token=geheim#x",
        "gst://rtspsrc location=rtsp://cam user-id=me user-pw=geheim ! decodebin",
        'gst://rtspsrc user-pw="geheim mit Leerzeichen" ! decodebin',
        "https://hub/x?api_key=geheim",
        "gst://rtspsrc user-pw = geheim ! decodebin",
        'gst://rtspsrc user-pw=(string)"geheim mit Leerzeichen" ! decodebin',
        "https://b.example/a.jpg?X-Amz-Credential=geheim&X-Amz-Signature=geheim",
        "https://b.example/a.jpg?sv=2024&sig=geheim%3D",
        "https://tiles.example/a?key=geheim",
        "aws_secret_access_key=geheim",
        "AWS_ACCESS_KEY_ID=geheim",
        "cast-camera --token=geheim",
        "found token='geheim",
        'found: password="geheim mit Leerz',
        "user-pw=it's-geheim",
        "password=ab'geheim",
        "('http://cam/live?token=geheim', 3)",
    ],
)
def test_values_with_a_telling_name(text: str):
    masked = mask(text)
    assert "geheim" not in masked and "***" in masked and masked.startswith(text[:8])


@pytest.mark.parametrize(
    "text",
    [
        "cast-serve --token geheim1234567890123456 --serve 0.0.0.0:1",
        '{"token": "geheim1234567890123456"}',
        "{'api_key': 'geheim1234567890123456'}",
        "Authorization: Bearer geheim1234567890123456",
        '"authorization": "Basic geheim1234567890123456"',
        "https://geheim1234567890123456@hub.example/x",
    ],
)
def test_other_places(text: str):
    masked = mask(text)
    assert "geheim" not in masked and "***" in masked and masked[:5] == text[:5]


@pytest.mark.parametrize(
    "text",
    [
        "clip@home.mp4",
        "rtsp://10.0.0.2:554/a?b=c",
        "a@b",
        "level=2, passes=15",
        "bypass=1 compass=2",
        "http://[::1]:80/x",
        "rtsp://operator@cam-10.example/1",
        "levels.tokens=1 keys=3 monkey=2",
        "give --token TEXT",
        "the tokens of level 1: 64",
        "a bearer of news",
        '{"level": "1", "key": "a"}',
        "design=3 assignature",
    ],
)
def test_everything_else_stays(text: str):
    assert mask(text) == text


def test_every_error_is_masked():
    error = InputError("No video from rtsp://me:a#b@cam.", found="rtsp://me:a#b@cam", remedy="ffplay rtsp://me:a#b@cam")
    assert "a#b" not in str(error) and "a#b" not in f"{error.problem}{error.found}{error.remedy}"
    assert isinstance(error, CastError)


def test_what_may_be_a_name_is_masked_for_people_only():
    """What is written into data is refused for a secret, and a key is also the name of an object."""
    for name in ("https://host/get?key=photos/1.jpg", "https://host/a.jpg?code=17"):
        assert mask(name) != name and mask(name, doubtful=False) == name
    key = "https://host/a.jpg?key=AIzaSyA-1234567890abcdefghijklmnopqrstuv"
    assert mask(key, doubtful=False) == "https://host/a.jpg?key=***"
