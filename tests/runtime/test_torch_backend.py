"""Checkpoints run without an export."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cast_sdk.errors import CheckpointError, InputError, MissingDependencyError
from cast_sdk.models import create_model
from cast_sdk.models.saving import save_native
from cast_sdk.runtime import Runtime

SMALL = {"embed_dim": 48, "depths": (1, 1, 1, 1), "clusters": (16, 8, 4, 2), "image_size": 96, "num_classes": 5}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("torch") / "small.safetensors"
    save_native(create_model("cast_deit_small", **SMALL), path)
    return path


def test_a_checkpoint_runs(checkpoint, photo):
    runtime = Runtime(checkpoint, device="cpu")
    results = runtime.segment_batch([photo, photo[::-1]])
    alone = runtime.segment(photo)
    assert np.array_equal(alone.labels(1), results[0].labels(1))
    assert alone.embedding.shape == (48,) and len(alone.top(9)) == 5
    assert not np.allclose(results[0].logits, results[1].logits, atol=1e-5)
    assert set(alone.outputs) == set(runtime.info.outputs)
    runtime.close()
    with pytest.raises(InputError, match="closed"):
        runtime.segment(photo)


def test_convolutions_are_not_rounded_to_tf32_and_the_setting_is_put_back(checkpoint, photo):
    runtime, seen = Runtime(checkpoint, device="cpu"), []
    hook = runtime.backend._model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        runtime.segment(photo)
        assert seen == [False] and torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
        hook.remove()


@pytest.mark.parametrize(
    "name, changes, outputs",
    [
        ("vit_conv_small", {"depths": (1,)}, {"embedding", "logits"}),
        ("tome_small", {"depths": (2,)}, {"embedding", "logits"}),
        ("cast_seg_deit_small", {}, {"embedding", "level1", "level2", "level3", "level4"}),
        ("segmenter_cast_small", {}, {"embedding", "level1", "level2", "level3", "level4", "semantic", "dense"}),
    ],
)
def test_other_families(tmp_path, photo, name, changes, outputs):
    options = {key: value for key, value in SMALL.items() if key != "clusters" or "cast" in name}
    if name.startswith("vit"):
        options["embed_dim"] = 48
    torch.manual_seed(0)
    model = create_model(name, **{**options, **changes})
    save_native(model, tmp_path / "m.safetensors")
    result = Runtime(tmp_path / "m.safetensors", device="cpu").segment(photo)
    assert set(result.outputs) == outputs
    assert result.plot().dtype == np.uint8


def test_what_it_cannot_do(checkpoint, tmp_path):
    if not torch.cuda.is_available():
        with pytest.raises(MissingDependencyError, match="device='cpu'"):
            Runtime(checkpoint, device="cuda")
    (tmp_path / "bad.pth").write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(CheckpointError):
        Runtime(tmp_path / "bad.pth")
