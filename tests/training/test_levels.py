"""The loss on the levels and the regions it draws them to."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from cast_sdk.errors import InputError
from cast_sdk.models import create_model
from cast_sdk.superpixels.merging import merge, neighbours
from cast_sdk.training.data.region_views import RegionViews, region_shares
from cast_sdk.training.data.regions import label_shares, nested_regions
from cast_sdk.training.engine.recipe.building import recipe_from_dict
from cast_sdk.training.tasks.levels import assignment_loss, level_loss, pooled_shares, token_loss


def quarters(side: int = 64) -> np.ndarray:
    """Four squares of distinct colours, with some noise."""
    rgb = np.zeros((side, side, 3), np.uint8)
    half = side // 2
    rgb[:half, :half], rgb[:half, half:], rgb[half:, :half], rgb[half:, half:] = 30, (200, 30, 30), (30, 200, 30), 220
    return np.clip(rgb + np.random.default_rng(0).normal(0, 3, rgb.shape), 0, 255).astype(np.uint8)


def test_regions_nest_and_follow_colour():
    maps = nested_regions(quarters(224), (8, 4, 2, 1))
    assert [len(np.unique(level)) for level in maps] == [8, 4, 2, 1]
    for fine, coarse in itertools.pairwise(maps):
        assert all(len(np.unique(coarse[fine == label])) == 1 for label in np.unique(fine))
    corners = maps[1][[40, 40, 180, 180], [40, 180, 40, 180]]
    assert len(set(corners.tolist())) == 4


def test_people_decide_before_colour():
    rgb = np.full((224, 224, 3), 128, np.uint8) + np.random.default_rng(0).integers(0, 9, (224, 224, 3), np.uint8)
    drawn = np.zeros((224, 224), np.int32)
    drawn[:, 112:] = 1
    level = nested_regions(rgb, (4, 2), [drawn])[1]
    left, right = level[:, :96], level[:, 128:]
    assert len(np.unique(left)) == len(np.unique(right)) == 1 and left[0, 0] != right[0, 0]


def test_merging_takes_the_nearest_neighbours_only():
    touch = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)  # a row of three; the ends are alike but apart
    colours = np.array([[10.0, 0, 0], [50, 0, 0], [11, 0, 0]])
    two, one = merge(np.ones(3), colours, touch, (2, 1), np.zeros((3, 3)))
    assert two[0] != two[2] and len(set(two.tolist())) == 2
    assert set(one.tolist()) == {0}


def test_specks_are_merged_first_where_that_is_asked():
    touch = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], bool)  # two large regions that are alike, and a speck
    colours, areas = np.array([[10.0, 0, 0], [20, 0, 0], [50, 0, 0]]), np.array([500.0, 500, 1])
    (plain,) = merge(areas, colours, touch, (2,), np.zeros((3, 3)))
    (specks,) = merge(areas, colours, touch, (2,), np.zeros((3, 3)), specks_first=True)
    assert plain.tolist() == [0, 0, 1] and specks.tolist() == [0, 1, 1]


def test_shares_count_pixels():
    superpixels, labels = np.array([[0, 0, 1, 1]]), np.array([[5, 9, 9, 9]])
    assert label_shares(superpixels, labels).tolist() == [[0.5, 0.5], [0, 1]]
    assert neighbours(superpixels).tolist() == [[False, True], [True, False]]
    shares = region_shares(torch.tensor([[[0, 0, 2, 2]]]), torch.tensor([[[0, 1, 1, 1]]], dtype=torch.uint8), 4)
    assert shares.tolist() == [[[0.5, 0.5], [0, 0], [0, 1], [0, 0]]]


def test_a_segment_has_the_mean_share_of_its_superpixels():
    shares = torch.tensor([[[1.0, 0], [0, 1], [0, 0], [0, 1]]])
    sizes = torch.tensor([[1.0, 1, 0, 1]])
    pooled, held = pooled_shares(shares, sizes, torch.tensor([[0, 0, 0, 2]]), 3)
    assert pooled.tolist() == [[[0.5, 0.5], [0, 0], [0, 1]]] and held.tolist() == [[2, 0, 1]]


def test_the_right_assignment_costs_least():
    shares = torch.tensor([[[1.0, 0], [1, 0], [0, 1], [0, 1]]])
    sizes, sampled = torch.ones(1, 4), torch.tensor([[0, 2]])
    right = torch.tensor([[[5.0, 0], [5, 0], [0, 5], [0, 5]]])
    losses = [assignment_loss(logits, sampled, shares, sizes) for logits in (right, right * 0, right.flip(-1))]
    assert losses[0] < losses[1] < losses[2]
    assert losses[1] == pytest.approx(np.log(2), abs=1e-5)
    alone = assignment_loss(right * 0, torch.tensor([[0, 1]]), shares, sizes)  # no seed in the second region
    assert alone == pytest.approx(np.log(2), abs=0.01)  # both seeds are as good; tokens without a seed do not count


def test_tokens_of_one_region_are_drawn_together():
    shares = torch.tensor([[[1.0, 0], [1, 0], [0, 1], [0, 1]]])
    grouped = torch.tensor([[[1.0, 0], [1, 0.1], [-1, 0], [-1, 0.1]]])
    mixed = grouped[:, [0, 2, 1, 3]]
    assert token_loss(grouped, shares, torch.ones(1, 4)) < token_loss(mixed, shares, torch.ones(1, 4))


def stored(folder, side: int = 40):
    image = quarters(side)
    maps = np.stack(nested_regions(quarters(224), (8, 4, 2, 2)))[:, :: 224 // side, :: 224 // side][:, :side, :side]
    np.savez_compressed(folder / "regions.npz", images=np.stack([image] * 2), maps=np.stack([maps] * 2))


def test_a_batch_holds_regions_of_its_own_crops(tmp_path):
    stored(tmp_path)
    recipe = recipe_from_dict({"augment": {"image_size": 48}, "superpixels": {"count": 16, "bins": 5, "iterations": 4}})
    views = RegionViews(tmp_path, recipe)
    torch.manual_seed(1)
    batch = views.batch(3)
    torch.manual_seed(1)
    again = views.batch(3)
    assert torch.equal(batch.images, again.images) and len(batch) == 3
    assert batch.images.shape == (3, 3, 48, 48) and batch.superpixels.shape == (3, 48, 48)
    for share in batch.shares:
        assert share.shape[:2] == (3, 16)
        assert torch.allclose(share.sum(-1), torch.ones(3, 16), atol=1e-5)


def test_without_regions_the_remedy_is_named(tmp_path):
    with pytest.raises(InputError, match=r"(?s)regions\.npz.*prepare_data\.py regions"):
        RegionViews(tmp_path, recipe_from_dict({}))


def test_training_on_the_loss_lowers_it_and_moves_the_last_pooling(tmp_path):
    stored(tmp_path)
    recipe = recipe_from_dict({"augment": {"image_size": 32}, "superpixels": {"count": 16, "bins": 5, "iterations": 4}})
    views = RegionViews(tmp_path, recipe)
    torch.manual_seed(0)
    model = create_model(
        "cast_tiny", image_size=32, embed_dim=32, depths=(1, 1, 1, 1), num_heads=2, clusters=(8, 4, 3, 2), num_classes=2
    )
    model.pool4.pool_block.centroid_fc.requires_grad_(True)
    before = model.pool4.pool_block.centroid_fc.attn.qkv.weight.detach().clone()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 2e-3)
    losses = []
    for _ in range(40):
        batch = views.batch(4)
        output = model(batch.images.float() / 128 - 1, batch.superpixels, 16)
        loss = level_loss(output.levels, batch.shares)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])
    assert not torch.equal(before, model.pool4.pool_block.centroid_fc.attn.qkv.weight)
