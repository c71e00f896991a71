"""Files by hf:// address, against a local server that speaks the hub's protocol and serves the official layouts."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys

import pytest
import torch
from hub_server import REPOSITORY

from cast_sdk.errors import CheckpointError, InputError, MissingDependencyError
from cast_sdk.hub.download import digest, fetch, parse
from cast_sdk.models import MoCo, load_model, model_spec
from cast_sdk.published import PUBLISHED

hub = pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
pytest.importorskip("huggingface_hub.file_download")

MOCO = f"hf://{REPOSITORY}/snapshots/moco/imagenet1k/cast_small/checkpoint_0099.pth.tar"


def test_load_model_opens_every_published_layout(server, models):
    for name, model in models[0].items():
        loaded = load_model(f"hf://{REPOSITORY}/{name}")
        original = model.base_encoder if isinstance(model, MoCo) else model
        assert loaded.spec.family == original.spec.family
        for key, value in loaded.state_dict().items():
            assert torch.equal(value, original.state_dict()[key]), (name, key)


def test_a_file_is_downloaded_once_and_its_digest_kept(server):
    path = fetch(MOCO)
    assert fetch(MOCO) == path
    assert [method for method, _, _ in server.log].count("GET") == 1
    assert digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_cached_file_works_without_a_connection(server, monkeypatch):
    path = fetch(MOCO)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch(MOCO) == path
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(MOCO) == path


def test_without_a_connection_the_message_says_so(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        CheckpointError, match=r"(?s)is not in the cache, and the hub does not answer.*copy the file here"
    ):
        fetch(MOCO)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
        fetch(MOCO)


def test_a_download_that_broke_off_goes_on_where_it_stopped(server, monkeypatch):
    name = MOCO.removeprefix(f"hf://{REPOSITORY}/")
    half = server.files[name][: len(server.files[name]) // 2]

    def breaks(url, target, **_):
        target.write(half)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(hub.file_download, "http_get", breaks)
        with pytest.raises(CheckpointError, match=r"(?s)No space left.*goes on where it stopped"):
            fetch(MOCO)
    assert fetch(MOCO).read_bytes() == server.files[name]
    assert ("GET", name, f"bytes={len(half)}-") in server.log


def test_a_partial_file_that_is_too_long_is_begun_anew(server):
    name = MOCO.removeprefix(f"hf://{REPOSITORY}/")
    path = fetch(MOCO).resolve()
    partial = path.with_name(f"{path.name}.cast_sdk.partial")
    path.rename(partial)
    with partial.open("ab") as file:
        file.write(b"more")
    assert fetch(MOCO).read_bytes() == server.files[name]
    assert [asked for method, _, asked in server.log if method == "GET"] == [None, None]


def test_content_that_is_not_the_hubs_is_refused_and_not_kept(server, tmp_path):
    name = MOCO.removeprefix(f"hf://{REPOSITORY}/")
    server.wrong[name] = server.files[name][:-1] + b"?"
    with pytest.raises(CheckpointError, match="SHA-256 that the hub states"):
        fetch(MOCO)
    server.wrong.clear()
    assert fetch(MOCO).read_bytes() == server.files[name]


def test_a_cached_file_that_changed_is_refused(server):
    path = fetch(MOCO)
    blob = path.resolve()
    content = bytearray(blob.read_bytes())
    content[100] ^= 1
    blob.write_bytes(content)
    os.utime(blob, ns=(1, 1))
    with pytest.raises(CheckpointError, match=r"(?s)the one that was downloaded.*downloaded anew"):
        fetch(MOCO)


def test_a_missing_file_names_what_the_folder_has(server):
    with pytest.raises(CheckpointError, match=r"it has: .*checkpoint_0099\.pth\.tar"):
        fetch(f"hf://{REPOSITORY}/snapshots/moco/imagenet1k/cast_small/checkpoint_0098.pth.tar")


def test_a_missing_repository(server):
    with pytest.raises(CheckpointError, match="The hub has no nobody/nothing"):
        fetch("hf://nobody/nothing/file.pth")


@pytest.mark.parametrize(
    "uri",
    [
        "hf://twke",
        "hf://twke/CAST",
        "hf://twke/CAST/",
        "hf://twke/CAST/folder/",
        "x.pth",
        "hf://../../x",
        "hf://a/b/../x",
    ],
)
def test_malformed_names(uri):
    with pytest.raises(InputError, match="cast-doctor models"):
        parse(uri)


def test_names():
    assert parse("hf://a/b/c/d.pth") == ("a/b", "c/d.pth", None)
    assert parse("hf://a/b@v1/d.pth") == ("a/b", "d.pth", "v1")


def test_without_huggingface_hub_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .huggingface_hub"):
        fetch(MOCO)


def test_the_published_table_is_listed_without_loading_torch():
    code = (
        "import sys; from cast_sdk.runtime.commands.doctor import main\n"
        "try: main(['models', '--json'])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'huggingface_hub' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["uri"] for row in rows] == [row.uri for row in PUBLISHED]
    for row in rows:
        assert parse(row["uri"])[0] == REPOSITORY and row["results"]
        model_spec(row["model"])  # registered


def test_a_connection_that_is_cut_is_taken_up_again(server):
    name = MOCO.removeprefix(f"hf://{REPOSITORY}/")
    server.cut[name] = 1000
    assert fetch(MOCO).read_bytes() == server.files[name]
    assert [method for method, _, _ in server.log].count("GET") == 2


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_sees_the_progress_unless_it_asked_for_quiet(server, quiet):
    code = "import logging, sys; from cast_sdk.hub.download import fetch\n"
    code += "logging.getLogger('cast_sdk').setLevel(logging.WARNING)\n" if quiet else ""
    terminal, end = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", f"{code}fetch({MOCO!r})"], stderr=end, stdout=subprocess.PIPE, timeout=120
    )
    os.write(end, b"\n")
    said = os.read(terminal, 1 << 16).decode()
    os.close(end)
    os.close(terminal)
    assert done.returncode == 0 and not done.stdout, said
    assert ("checkpoint_0099" in said and "100%" in said) is not quiet, said
