"""Checkpoints run without an export."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cast_sdk import bundled
from cast_sdk.errors import CheckpointError, InputError, MissingDependencyError
from cast_sdk.export.verification.photos import read_inputs
from cast_sdk.models import create_model
from cast_sdk.models.saving import save_native
from cast_sdk.runtime import Runtime
from cast_sdk.runtime.backends import torch_settings
from cast_sdk.system.processor import bfloat16_units

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


@pytest.mark.parametrize("eager", [False, True])
def test_float32_is_not_rounded_and_the_settings_are_put_back(checkpoint, photo, eager, monkeypatch):
    """What lets a card round to TF32, and a processor to bfloat16, is off around a run alone."""
    places = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul
    runtime, seen = Runtime(checkpoint, device="cpu", eager=eager), []
    convolution = torch.nn.functional.conv2d

    def spy(*arguments, **options):
        seen.append({place.fp32_precision for place in places})
        return convolution(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "conv2d", spy)
    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", lambda self, x, w, b: spy(x, w, b, self.stride, self.padding))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        allowed = [place.fp32_precision for place in places]
        runtime.segment(photo)
        assert len(seen) == 4 + eager and set.union(*seen) == {"ieee"}
        assert [place.fp32_precision for place in places] == allowed == ["tf32", "tf32", "bf16"]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


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


@pytest.mark.parametrize(
    "name", ["cast_small", "cast_deit_small", "cast_seg_small", "spml_cast_small", "vit_conv_small"]
)
def test_the_static_module_is_the_model(tmp_path, name):
    """Same labels and scores as the training model, alone and in a batch."""
    options = {key: value for key, value in SMALL.items() if key != "clusters" or "cast" in name}
    options["depths"] = (1, 1, 1, 1) if "cast" in name else (2,)
    torch.manual_seed(0)
    save_native(create_model(name, **options), tmp_path / "m.safetensors")
    eager, static = (Runtime(tmp_path / "m.safetensors", device="cpu", eager=value).backend for value in (True, False))
    given = read_inputs(static.spec, (96, 96), bundled.photos()[:4])
    expected = eager.run(given.image, given.superpixels)
    for rows in ([0, 1, 2, 3], [1]):
        found = static.run(given.image[rows], given.superpixels[rows])
        assert list(found) == list(expected)
        for key, value in found.items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(value, expected[key][rows], rtol=1e-3, atol=1e-4)
            else:
                assert value.dtype == np.int32 and np.mean(value == expected[key][rows]) > 0.99


@pytest.mark.skipif(not bfloat16_units(), reason="this processor has no bfloat16 instructions")
def test_bfloat16_on_the_cpu(checkpoint, photo):
    exact, half = (Runtime(checkpoint, device="cpu", precision=name) for name in ("fp32", "bf16"))
    assert half.info.precision == "bf16" and "bf16" in repr(half)
    one, other = exact.segment(photo), half.segment(photo)
    difference = np.abs(one.embedding - other.embedding).max() / np.abs(one.embedding).max()
    assert 0 < difference < 0.1
    assert other.embedding.dtype == np.float32 and other.outputs["level4"].dtype == np.int32


def test_precisions_that_a_device_lacks(checkpoint, monkeypatch):
    with pytest.raises(InputError, match=r"'fp16' is for GPUs.*\n  Remedy: use precision='fp32'"):
        Runtime(checkpoint, device="cpu", precision="fp16")
    with pytest.raises(InputError, match="There is no precision 'int4'"):
        Runtime(checkpoint, device="cpu", precision="int4")
    monkeypatch.setattr(torch_settings, "bfloat16_units", list)
    monkeypatch.setattr(torch_settings, "processor_name", lambda: "Ancient CPU @ 1 GHz")
    with pytest.raises(MissingDependencyError, match=r"(?s)lacks the bfloat16.*Found: Ancient CPU @ 1 GHz.*'fp32'"):
        Runtime(checkpoint, device="cpu", precision="bf16")


def test_options_that_do_not_fit(checkpoint):
    with pytest.raises(InputError, match=r"eager=True and precision='bf16' were given together"):
        Runtime(checkpoint, device="cpu", precision="bf16", eager=True)
    with pytest.raises(InputError, match="cuda_graph=True was given for the CPU"):
        Runtime(checkpoint, device="cpu", cuda_graph=True)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("label", [-1, None])
def test_labels_are_checked_before_they_are_uploaded(checkpoint, eager, label):
    backend = Runtime(checkpoint, device="cpu", eager=eager).backend
    count = backend.info.num_superpixels
    superpixels = np.zeros((1, 96, 96), np.int32)
    superpixels[0, 5, 5] = count if label is None else label
    with pytest.raises(InputError, match=rf"do not lie in 0\.\.{count - 1}"):
        backend.run(np.zeros((1, 96, 96, 3), np.uint8), superpixels)
