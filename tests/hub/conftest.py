"""Small models in the official layouts, a local hub that serves them, and caches of the test's own."""

from __future__ import annotations

import threading

import pytest
from hub_server import Hub

from cast_sdk.models import MoCo, create_model, model_spec, save_official

SMALL = {"embed_dim": 48, "depths": (1, 1, 1, 1)}


@pytest.fixture(scope="session")
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
    """A hub for this process and those that it starts, with empty caches."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="the extra `hub` is not installed")
    server = Hub(dict(models[1]))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    # Older versions have the address from when they were imported, in two modules.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    template = server.url + template[template.index("/{repo_id}") :]
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    for module in (constants, pytest.importorskip("huggingface_hub.file_download")):
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setenv("CAST_SDK_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()
