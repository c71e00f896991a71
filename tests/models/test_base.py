"""What all models share: a description that tells what a pass gives, and how weights are drawn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cast_sdk.models import MoCo, Model, create_model, model_spec, save_native
from cast_sdk.runtime.backends.torch import TorchBackend
from cast_sdk.spec import SuperpixelSettings

SIZES = {"embed_dim": 24, "num_heads": 2, "depths": (1, 1, 1, 1), "clusters": (8, 6, 4, 2), "num_classes": 5}
WHOLE = {**SIZES, "image_size": 64, "superpixels": SuperpixelSettings(25, bins=5, iterations=2)}
PLAIN = {"embed_dim": 24, "num_heads": 2, "depths": (1,), "num_classes": 5, "image_size": 64}
PROJECTOR = {"num_classes": 0, "head": "projector", "head_dims": (16, 8)}
MODELS = {
    "cast": ("cast_small", WHOLE, True),
    "cast without a head": ("cast_small", {**WHOLE, "num_classes": 0}, False),
    "cast, projector": ("cast_small", {**WHOLE, **PROJECTOR}, True),
    "cast_deit": ("cast_deit_small", WHOLE, True),
    "cast_seg, pretrain": ("cast_seg_small", WHOLE, True),
    "cast_seg, pretrain, projector": ("cast_seg_small", {**WHOLE, **PROJECTOR}, True),
    "cast_seg, segmentation": ("cast_seg_small", {**WHOLE, "stage": "segmentation"}, False),
    "cast_seg_deit": ("cast_seg_deit_small", WHOLE, False),
    "segmenter": ("segmenter_cast_small", {**WHOLE, "decoder_layers": 1, "decoder_heads": 2}, False),
    "spml": ("spml_cast_small", WHOLE, False),
    "spml, retrieval": ("spml_cast_small", {**WHOLE, **PROJECTOR, "classifier": "none"}, False),
    "tome": ("tome_small", {**PLAIN, "superpixels": SuperpixelSettings(25, bins=5, iterations=2)}, True),
    "vit": ("vit_small", {**PLAIN, "image_size": 64, "position_grid": 4}, True),
    "vit_conv, projector": ("vit_conv_small", {**PLAIN, **PROJECTOR, "position_grid": 4}, True),
}


@pytest.mark.parametrize("case", MODELS)
def test_the_description_says_whether_a_pass_gives_logits(case):
    name, options, logits = MODELS[case]
    model = create_model(name, **options).eval()
    assert isinstance(model, Model) and model.spec.has_logits is logits
    superpixels = (torch.arange(64 * 64).view(1, 64, 64) * 25) // (64 * 64)
    with torch.inference_mode():
        output = model(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), superpixels, 25)
    assert (output.logits is not None) is logits


def test_a_checkpoint_with_a_projector_gives_the_outputs_of_its_graph(tmp_path):
    name, options, _ = MODELS["cast, projector"]
    save_native(create_model(name, **options), tmp_path / "x.safetensors")
    backend = TorchBackend(tmp_path / "x.safetensors")
    assert backend.info.outputs == ("embedding", "logits", "level1", "level2", "level3", "level4")


def test_weights_are_drawn_in_place():
    model = create_model("cast_small", **WHOLE)
    nn.init.constant_(model.cls_token, 7.0)
    assert model.initialise() is model and model.cls_token.abs().max() < 1e-4
    moco = MoCo(model_spec("cast_small", **{**WHOLE, **PROJECTOR}))
    before = moco.base_encoder.cls_token.clone()
    assert moco.initialise() is moco and not torch.equal(before, moco.base_encoder.cls_token)
    assert torch.equal(moco.base_encoder.cls_token, moco.momentum_encoder.cls_token)
