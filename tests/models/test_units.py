"""Stand-alone pieces of the models against the unit fixtures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_tools import GOLDEN, assert_close, drawn

from cast_sdk.models.baselines import merge_tokens
from cast_sdk.models.dense import MaskTransformer, spread
from cast_sdk.models.layers import Block, ConvStem, resize_positions, sincos_positions
from cast_sdk.models.pooling import BlockFusion, GraphPooling, compose_labels
from cast_sdk.models.sampling import farthest_points
from cast_sdk.models.superpixel_ops import (
    nearest_labels,
    resized_assignment,
    resized_segment_mean,
    segment_mean,
    segment_sizes,
)


@pytest.fixture(scope="module")
def units():
    with np.load(GOLDEN / "units.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def load_unit(module, units, prefix):
    module.load_state_dict({k.removeprefix(prefix): v for k, v in units.items() if k.startswith(prefix)})
    return module.eval()


def test_segment_mean(units):
    labels = units["segmean/labels"].long()
    assert_close(segment_mean(units["segmean/x"], labels, 14), units["segmean/mean"], 1e-6)
    sizes = segment_sizes(labels, 14)
    torch.testing.assert_close((sizes > 0).float(), units["segmean/ones"])
    torch.testing.assert_close(sizes <= 0.5, units["segmean/padding_mask"])


@pytest.mark.parametrize(
    "name", ["224x224_to_28x28", "512x512_to_64x64", "37x53_to_9x11", "100x76_to_64x64", "28x28_to_56x60"]
)
def test_nearest_labels(units, name):
    out = units[f"nearest/{name}/out"]
    torch.testing.assert_close(nearest_labels(units[f"nearest/{name}/in"], *out.shape[1:]), out)


def test_positions(units):
    assert_close(sincos_positions(28, 48), units["sincos/grid28_dim48"], 1e-6)
    assert_close(sincos_positions(4, 48, class_row=True), units["sincos/vit_grid4_dim48"], 1e-6)
    assert_close(resize_positions(units["resize/spml_in"], 8), units["resize/spml_out"], 1e-6)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(6, 6), (13, 17), (16, 16), (5, 4)])
def test_resized_segment_mean_of_single_pixels_is_the_resize(units, mode, size):
    features, expected = units["resize/in"], units[f"resize/{mode}_{size[0]}x{size[1]}"]
    labels = torch.arange(size[0] * size[1]).view(1, *size)
    mean = resized_segment_mean(features, labels, labels.numel(), mode)
    assert_close(mean.view(expected.shape), expected, 1e-5)


def test_resized_assignment_equals_resize_then_mean():
    torch.manual_seed(0)
    features, labels = torch.randn(2, 7, 9, 6), torch.randint(0, 11, (2, 30, 41))
    full = F.interpolate(features.permute(0, 3, 1, 2), size=(30, 41), mode="bicubic").permute(0, 2, 3, 1)
    ours = resized_assignment(labels, 12, (7, 9), "bicubic") @ features.flatten(1, 2)
    assert_close(ours, segment_mean(full, labels, 12), 1e-5)
    assert not ours[:, 11].any(), "an absent label is a zero token"


@pytest.mark.parametrize("scale", ["s1", "s1e-2", "s3e-3"])
def test_pooling(units, scale):
    pool = load_unit(GraphPooling(48, 12, 6), units, "pool/state/")
    part = {key.removeprefix(f"pool/{scale}/"): v for key, v in units.items() if key.startswith(f"pool/{scale}/")}
    with torch.no_grad():
        pooled = pool(part["cls"], part["src"], part["mask"])
        nodes = pool.centroid_fc(part["src"])
    torch.testing.assert_close(pooled.sampled.int(), part["sampled"])
    assert_close(nodes, part["node_features"], 1e-5)
    assert_close(pooled.logits, part["logits"], 1e-5)
    assert_close(pooled.centroids, part["centroids"], 1e-5)
    assert_close(pooled.class_token, part["out_cls"], 1e-5)


def test_fusion(units):
    fusion = load_unit(BlockFusion(48), units, "fusion/state/")
    labels = compose_labels([units[f"fusion/logit{n}"] for n in (1, 2, 3)])
    tokens = [units[f"fusion/block{n}"] for n in (1, 2, 3, 4)]
    classes = [units[f"fusion/cls{n}"] for n in (1, 2, 3, 4)]
    with torch.no_grad():
        out = fusion(tokens, classes, labels)
        assert_close(out[:, 1:], units["fusion/out_block_eval"], 1e-5)
        assert_close(out[:, :1], units["fusion/out_cls_eval"], 1e-5)
        fusion.train()
        fusion.proj_blocks[1].p = 0.0
        out = fusion(tokens, classes, labels)
    assert_close(out[:, 1:], units["fusion/out_block_train"], 1e-5)
    assert_close(out[:, :1], units["fusion/out_cls_train"], 1e-5)
    norm = fusion.proj_blocks[0].norm
    assert_close(norm.running_mean, units["fusion/running_mean_after"], 1e-5)
    assert_close(norm.running_var, units["fusion/running_var_after"], 1e-5)


def test_stems(units):
    stem = load_unit(ConvStem(48), units, "stem8/state/")
    with torch.no_grad():
        assert_close(stem(units["stem8/in"]), units["stem8/out"], 1e-5)
        stem16 = ConvStem(48, (2, 2, 2, 2)).eval()
        for key, value in stem16.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(drawn(f"stem16:{key}", tuple(value.shape))))
        assert_close(stem16(units["stem16/in"]).flatten(1, 2), units["stem16/out"], 1e-5)


@pytest.mark.parametrize("name", ["lattice", "random", "duplicates"])
def test_farthest_points(units, name):
    points, expected = units[f"fps/{name}"], units[f"fps/{name}_idx"].long()
    torch.testing.assert_close(farthest_points(points, expected.shape[1]), expected)
    if name == "random":  # no exact ties: the float32 matrix picks the same
        torch.testing.assert_close(farthest_points(points, expected.shape[1], "matrix"), expected)


def test_composed_labels(units):
    labels = compose_labels([units[f"hier/logit{n}"][None] for n in (1, 2, 3, 4)])
    torch.testing.assert_close(torch.stack(labels, -1)[0].short(), units["hier/levels"])


@pytest.mark.parametrize("scale", ["s1", "s3e-3"])
def test_vit_block(units, scale):
    block = load_unit(Block(48, 12), units, "vitblock/state/")
    with torch.no_grad():
        assert_close(block(units[f"vitblock/{scale}/in"]), units[f"vitblock/{scale}/out"], 1e-5)


def test_token_merging(units):
    x, size = merge_tokens(units["tome/x"], units["tome/size"], units["tome/metric"], 6)
    assert_close(x, units["tome/merged_x"], 1e-5)
    assert_close(size, units["tome/merged_size"], 1e-5)


def test_mask_decoder(units):
    decoder = load_unit(MaskTransformer(48, 5, 2, 4), units, "decoder/state/")
    superpixels = units["decoder/superpixels"].long()
    with torch.no_grad():
        dense = decoder(units["decoder/x"])
    assert_close(spread(dense, superpixels, 10, 14), units["decoder/masks"], 1e-5)
    assert_close(spread(dense, superpixels, 16, 16), units["decoder/masks_16x16"], 1e-5)


@pytest.mark.parametrize("kind", ["softmax", "linear"])
def test_pixel_classifiers(units, kind):
    from cast_sdk.models import model_spec
    from cast_sdk.models.dense import pixel_classifier

    spec = model_spec("spml_cast_small", embed_dim=48, num_classes=7, classifier=kind)
    classifier = pixel_classifier(spec).eval()
    for key, value in classifier.state_dict().items():
        if value.is_floating_point():
            name = f"semantic_classifier.{key}"
            value.copy_(torch.from_numpy(drawn(f"{kind}:{name}", tuple(value.shape))))
    with torch.no_grad():
        logits = classifier(units[f"classifier/{kind}/emb"])
    assert_close(logits, units[f"classifier/{kind}/logit"], 1e-5)
    label = units[f"classifier/{kind}/label"].long()
    up = F.interpolate(logits, size=label.shape[1:], mode="bilinear")
    assert_close(up, units[f"classifier/{kind}/logit_up"], 1e-5)
