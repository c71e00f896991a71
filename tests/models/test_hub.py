"""Weights by hf:// names, against a local server that speaks the hub's protocol and serves the official layouts."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from cast_sdk.errors import CheckpointError, InputError, MissingDependencyError
from cast_sdk.models import MoCo, create_model, load_model, model_spec, save_official
from cast_sdk.models.hub import digest, fetch, parse
from cast_sdk.published import PUBLISHED

hub = pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
pytest.importorskip("huggingface_hub.file_download")

REPOSITORY = "twke/CAST"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"embed_dim": 48, "depths": (1, 1, 1, 1)}


class Hub(ThreadingHTTPServer):
    """Serves `files`; `log` holds (method, file, Range header); `wrong` replaces the content of a file on the wire."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.log, self.wrong = files, [], {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            names = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.server.files]
            body = {"id": REPOSITORY, "sha": COMMIT, "siblings": [{"rfilename": entry["path"]} for entry in names]}
            return self.answer(200, json.dumps(names if "/tree/" in path else body).encode())
        prefix = f"/{REPOSITORY}/resolve/main/"
        if not path.startswith(prefix):
            return self.answer(404, X_Error_Code="RepoNotFound")
        name = path.removeprefix(prefix)
        self.server.log.append((self.command, name, self.headers.get("Range")))
        content = self.server.files.get(name)
        if content is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        etag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
        if self.command == "HEAD":
            self.send_response(200)
            for key, value in {**headers, "Content_Length": len(content)}.items():
                self.send_header(key.replace("_", "-"), str(value))
            self.end_headers()
            return None
        content = self.server.wrong.get(name, content)
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.answer(206 if start else 200, content[start:], **headers)

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One small model per published layout, under the published file names."""
    folder = tmp_path_factory.mktemp("official")
    spec = model_spec("cast_small", **SMALL, num_classes=0, head="projector", head_dims=(32, 16))
    moco, seg = MoCo(spec), MoCo(model_spec("cast_seg_small", **SMALL, head="projector", head_dims=(32, 16)))
    deit = create_model("cast_deit_small", **SMALL, num_classes=7)
    probe = create_model("cast_small", **SMALL, num_classes=7)
    kinds = {
        "snapshots/moco/imagenet1k/cast_small/checkpoint_0099.pth.tar": (moco, "moco"),
        "snapshots/moco/imagenet1k/cast_small/lincls/model_best.pth.tar": (probe, "lincls"),
        "snapshots/moco/coco/cast_small/checkpoint_0399.pth.tar": (seg, "moco"),
        "snapshots/deit/imagenet1k/cast_small/best_checkpoint.pth": (deit, "deit"),
    }
    files = {}
    for name, (model, kind) in kinds.items():
        save_official(model, folder / "file", kind, epoch=1)
        files[name] = (folder / "file").read_bytes()
    return {name: model for name, (model, _) in kinds.items()}, files


@pytest.fixture
def server(models, tmp_path, monkeypatch):
    server = Hub(dict(models[1]))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


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


@pytest.mark.parametrize("uri", ["hf://twke", "hf://twke/CAST", "hf://twke/CAST/", "hf://twke/CAST/folder/", "x.pth"])
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
