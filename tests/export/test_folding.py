import pytest
import torch
import torch.nn.functional as F
from export_tools import assert_near, seeded
from torch import nn

from cast_sdk.export.lowering import folding
from cast_sdk.models.layers import resize_positions, sincos_positions


def trained(norm):
    """A BatchNorm with statistics as after training."""
    with torch.no_grad():
        norm.running_mean.copy_(seeded(norm.num_features, seed=1))
        norm.running_var.copy_(seeded(norm.num_features, seed=2).abs() + 0.1)
        if norm.affine:
            norm.weight.copy_(1 + 0.2 * seeded(norm.num_features, seed=3))
            norm.bias.copy_(seeded(norm.num_features, seed=4))
    return norm.eval()


def test_batchnorm_after_a_convolution():
    conv, norm = nn.Conv2d(3, 8, 3, bias=False), trained(nn.BatchNorm2d(8))
    weight, bias = folding.fold_batchnorm_after(conv.weight, None, norm)
    x = seeded(2, 3, 9, 9)
    assert_near(F.conv2d(x, weight, bias), norm(conv(x)), 1e-6)


@pytest.mark.parametrize("affine", [True, False])
def test_batchnorm_after_a_linear_layer(affine):
    layer, norm = nn.Linear(6, 5), trained(nn.BatchNorm1d(5, affine=affine))
    weight, bias = folding.fold_batchnorm_after(layer.weight, layer.bias, norm)
    x = seeded(4, 6)
    assert_near(F.linear(x, weight, bias), norm(layer(x)), 1e-6)


def test_batchnorm_before_a_linear_layer():
    norm, layer = trained(nn.BatchNorm1d(6)), nn.Linear(6, 5)
    weight, bias = folding.fold_batchnorm_before(norm, layer.weight, layer.bias)
    x = seeded(4, 6)
    assert_near(F.linear(x, weight, bias), layer(norm(x)), 1e-6)


def test_normalisation_is_exact_at_the_padded_border_too():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    conv = nn.Conv2d(3, 4, 3, 2, 1, bias=False)
    pixels = torch.randint(0, 256, (1, 3, 8, 8)).float()
    m, s = torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
    folded = F.conv2d(pixels - 255 * m, folding.fold_normalisation(conv.weight, std), None, 2, 1)
    assert_near(folded, conv((pixels / 255 - m) / s), 1e-6)


def test_query_scale():
    layer = nn.Linear(24, 72)
    weight, bias = folding.fold_query_scale(layer.weight, layer.bias, 6)
    x = seeded(5, 24)
    q, k, v = layer(x).chunk(3, -1)
    assert_near(F.linear(x, weight, bias), torch.cat([q * 4**-0.5, k, v], -1), 1e-6)


def test_separable_positions_are_found_and_others_are_not():
    table = sincos_positions(6, 16).view(6, 6, 16)
    rows, columns = folding.separable_positions(table)
    assert torch.equal(torch.cat([rows[:, None].expand(-1, 6, -1), columns[None].expand(6, -1, -1)], -1), table)
    table[2, 3, 0] += 1
    assert folding.separable_positions(table) is None
    assert resize_positions(sincos_positions(4, 16), 6).shape == (1, 36, 16)
