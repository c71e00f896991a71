"""Weights that are means of several trainings' weights."""

from __future__ import annotations

import pytest
import torch

from cast_sdk.errors import CheckpointError, InputError
from cast_sdk.models import create_model
from cast_sdk.models.checkpoints.mixing import mix, parse_share

TINY = {"embed_dim": 48, "depths": (1, 1, 1, 1), "num_heads": 3, "clusters": (8, 4, 2, 1), "num_classes": 3}


def model(seed, **options):
    torch.manual_seed(seed)
    made = create_model("cast_small", **{**TINY, "image_size": 64, **options})
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter))
    return made


def test_the_mean_of_three():
    mixed, first, second = model(0), model(1), model(2)
    own = {key: value.clone() for key, value in mixed.state_dict().items()}
    mix(mixed, [(0.25, first), (0.5, second)])
    for key, value in mixed.state_dict().items():
        if value.is_floating_point():
            expected = 0.25 * own[key] + 0.25 * first.state_dict()[key] + 0.5 * second.state_dict()[key]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_nothing_to_mix_changes_nothing():
    mixed = model(0)
    before = {key: value.clone() for key, value in mixed.state_dict().items()}
    mix(mixed, [])
    assert all(torch.equal(value, before[key]) for key, value in mixed.state_dict().items())


def test_positions_of_another_size_are_resized():
    mixed, smaller = model(0), model(1, image_size=32)
    own, blocks = mixed.pos_embed.clone(), mixed.blocks[0].mlp.fc1.weight.clone()
    mix(mixed, [(0.5, smaller)])
    assert mixed.pos_embed.shape == own.shape and not torch.equal(mixed.pos_embed, own)
    # The mean over the picture stays but for the border.
    found = 2 * mixed.pos_embed - own
    torch.testing.assert_close(found.mean(1), smaller.pos_embed.mean(1), rtol=0, atol=0.05)
    torch.testing.assert_close(mixed.blocks[0].mlp.fc1.weight, (blocks + smaller.blocks[0].mlp.fc1.weight) / 2)


def test_other_models_are_refused_before_anything_changes():
    mixed = model(0)
    before = mixed.head.weight.clone()
    wider, deeper, others = model(1, embed_dim=96), model(1, depths=(2, 1, 1, 1)), model(1, class_names=("a", "b", "c"))
    for other in (wider, deeper, others):
        with pytest.raises(CheckpointError, match="different models cannot be mixed"):
            mix(mixed, [(0.3, model(2)), (0.3, other)])
    with pytest.raises(InputError, match="leave"):
        mix(mixed, [(0.5, model(1)), (0.5, model(2))])
    assert torch.equal(mixed.head.weight, before)


@pytest.mark.parametrize("text", ["", "0.5", "0.5:", "a:b", "0:file", "1:file", "-1:file", "nan:file", ":file"])
def test_what_is_no_share(text):
    with pytest.raises(InputError, match="no share of weights"):
        parse_share(text)


def test_a_share_may_name_an_address():
    assert parse_share("0.25:hf://owner/repository/file.pth") == (0.25, "hf://owner/repository/file.pth")
