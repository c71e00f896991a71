"""A really exported graph through every backend that is here, against the checkpoint it came from."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from cast_sdk.export import export_onnx
from cast_sdk.models import create_model
from cast_sdk.models.saving import save_native
from cast_sdk.runtime import Runtime


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(0)
    sizes = {"embed_dim": 48, "depths": (1, 1, 1, 1), "clusters": (16, 8, 4, 2), "image_size": 96, "num_classes": 5}
    model = create_model("cast_small", **sizes).eval()
    folder = tmp_path_factory.mktemp("exported")
    save_native(model, folder / "m.safetensors")
    export_onnx(model, folder / "m.onnx", verify=False)
    return folder / "m.safetensors", folder / "m.onnx"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_graph_gives_what_the_checkpoint_gives(files, photo, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"the optional package {backend} is not installed")
    reference = Runtime(files[0], device="cpu")
    runtime = Runtime(files[1], backend=backend, device="cpu")
    frames = [photo, photo[:, ::-1], photo[::-1], 255 - photo]
    results = runtime.segment_batch(frames)
    for frame, result in zip(frames, results, strict=True):
        expected = reference.segment(frame)
        scale = np.abs(expected.logits).max()
        assert np.abs(result.logits - expected.logits).max() < 1e-4 * scale
        for level in range(5):
            assert (result.labels(level) == expected.labels(level)).mean() > 0.999
    # An optimiser that folds the network to a constant would pass any test with one image.
    logits = np.stack([result.logits for result in results])
    assert np.ptp(logits, axis=0).max() > 1e-3 * np.abs(logits).max()
