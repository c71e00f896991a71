import itertools

import pytest
import torch
from export_tools import assert_near, seeded

from cast_sdk.export.lowering import blocks
from cast_sdk.export.lowering.baselines import merge
from cast_sdk.export.lowering.cast import LoweredDecoder
from cast_sdk.export.lowering.sampling import sample_tokens
from cast_sdk.models.baselines import merge_tokens
from cast_sdk.models.cast import projector
from cast_sdk.models.dense import MaskTransformer
from cast_sdk.models.layers import Block
from cast_sdk.models.pooling import BlockFusion, GraphPooling, compose_labels

FLOAT = torch.float32
both = pytest.mark.parametrize("batch", [1, 3])


def ranked(x, batch):
    """A matrix at batch 1, as the lowered modules get it."""
    return x[0] if batch == 1 else x


@pytest.fixture(autouse=True)
def no_grad():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@both
def test_block(batch):
    block, x = Block(24, 4).eval(), seeded(batch, 9, 24)
    assert_near(blocks.LoweredBlock(block, FLOAT)(ranked(x, batch)), ranked(block(x), batch))


@both
@pytest.mark.parametrize("some_empty", [False, True])
def test_sampling(batch, some_empty):
    pooling, x = GraphPooling(16, 4, 7).eval(), seeded(batch, 30, 16)
    empty = torch.zeros(batch, 30, dtype=torch.bool)
    empty[:, 4:9] = some_empty
    x[empty] = 50.0  # far away: chosen at once if they were not moved onto the mean
    present = ranked((~empty)[..., None].float(), batch) if some_empty else None
    found = sample_tokens(ranked(x, batch), 7, present)
    assert torch.equal(found, ranked(pooling.sample(x, empty if some_empty else None), batch))


def test_sampling_takes_the_lowest_index_on_ties():
    x = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [0, 0], [0, 0]])
    assert sample_tokens(x, 4).tolist() == [0, 1, 2, 3]


@both
def test_pooling(batch):
    pooling, t, x = GraphPooling(16, 4, 5).eval(), seeded(batch, 1, 16, seed=1), seeded(batch, 12, 16)
    expected = pooling(t, x)
    sampled, logits = blocks.LoweredGrouping(pooling, FLOAT)(ranked(x, batch))
    assert torch.equal(sampled, ranked(expected.sampled, batch))
    assert_near(logits, ranked(expected.logits, batch))
    z = ranked(torch.cat([t, x], 1), batch)
    values = blocks.LoweredValues(pooling, FLOAT)
    found = values(z, sampled, logits.softmax(-1))
    assert_near(found[..., :1, :], ranked(expected.class_token, batch))
    assert_near(found[..., 1:, :], ranked(expected.centroids, batch))
    assert_near(values(z), ranked(expected.class_token, batch))


@both
def test_fusion(batch):
    fusion = BlockFusion(8)
    for number, tensor in enumerate(fusion.proj_blocks[0].norm.buffers()):
        if tensor.is_floating_point():
            tensor.copy_(seeded(32, seed=number).abs() + 0.5)
    fusion.eval()
    sizes = (11, 6, 4, 3)
    tokens = [seeded(batch, size, 8, seed=size) for size in sizes]
    class_tokens = [seeded(batch, 1, 8, seed=50 + size) for size in sizes]
    labels = compose_labels([seeded(batch, a, b, seed=a) for a, b in itertools.pairwise(sizes)])
    expected = fusion(tokens, class_tokens, labels)
    lowered = blocks.LoweredFusion(fusion, FLOAT)
    found = lowered([ranked(x, batch) for x in tokens], [ranked(index, batch) for index in labels])
    assert_near(found, ranked(expected[:, 1:], batch))
    assert_near(lowered.class_token([ranked(x, batch) for x in class_tokens]), ranked(expected[:, :1], batch))


@both
@pytest.mark.parametrize("tokens", [17, 40])
def test_token_merging(batch, tokens):
    x, metric = seeded(batch, tokens, 8), seeded(batch, tokens, 4, seed=2)
    size = seeded(batch, tokens, 1, seed=3).abs() + 1
    merged = min(16, (tokens - 1) // 2)
    expected = merge_tokens(x, size, metric, merged)
    found = merge(ranked(x, batch), ranked(size, batch), ranked(metric, batch), merged)
    for one, other in zip(found, expected, strict=True):
        assert_near(one, ranked(other, batch))


@both
def test_mask_transformer(batch):
    decoder, x = MaskTransformer(24, 5, 1, 4).eval(), seeded(batch, 7, 24)
    assert_near(LoweredDecoder(decoder, FLOAT)(ranked(x, batch)), ranked(decoder(x), batch), 5e-5)


def test_projector_head():
    head = projector(8, 12, 6, 3).eval()
    for module in head:
        for number, tensor in enumerate(module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(seeded(len(tensor), seed=number).abs() + 0.5)
    x = seeded(4, 8)
    lowered = blocks.lower_head(head)
    assert_near(lowered(x), head(x))
    assert not any(isinstance(module, torch.nn.BatchNorm1d) for module in lowered.modules())
