import pytest
import torch
from export_tools import assert_near, seeded

from cast_sdk.export.lowering.segments import (
    GridAssignment,
    GridPositions,
    ResizedAssignment,
    ResizedPositions,
    WindowedCounts,
)
from cast_sdk.models.layers import sincos_positions
from cast_sdk.models.superpixel_ops import nearest_labels, resized_segment_mean, segment_mean


def label_map(height, width, count, seed=0):
    """Random labels in 0..count-1, of which every seventh is absent."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, count, (1, height, width), generator=generator)
    return torch.where(labels % 7 == 3, labels - 1, labels).int()


@pytest.mark.parametrize("size", [(32, 32), (30, 44)])
def test_grid_means_equal_the_models(size):
    grid, count = (4, 5), 16
    labels, features = label_map(*size, count), seeded(1, *grid, 6)
    assignment, present = GridAssignment(size, grid, count)(labels[0])
    expected = segment_mean(features, nearest_labels(labels, *grid), count)[0]
    assert_near(assignment @ features.flatten(1, 2)[0], expected, 1e-6)
    assert torch.equal(present[:, 0] == 0, (expected == 0).all(1))


@pytest.mark.parametrize("separable", [True, False])
def test_grid_positions_with_a_bias_leave_empty_superpixels_at_zero(separable):
    size, grid, count, bias = (40, 40), (5, 5), 32, seeded(8, seed=3)
    table = sincos_positions(5, 8).view(5, 5, 8) if separable else seeded(5, 5, 8)
    labels = label_map(*size, count)
    assignment, present = GridAssignment(size, grid, count)(labels[0])
    positions = GridPositions(table, bias)
    assert positions.separable is separable
    found = positions(assignment)
    assert_near(found, segment_mean((table + bias)[None], nearest_labels(labels, *grid), count)[0], 1e-6)
    assert (found[present[:, 0] == 0] == 0).all() and (present == 0).any()


@pytest.mark.parametrize(("size", "grid"), [((64, 64), (8, 8)), ((50, 36), (7, 5)), ((24, 40), (3, 5))])
def test_resized_means_equal_the_models(size, grid):
    count = 21
    labels, features = label_map(*size, count), seeded(1, *grid, 6)
    assignment, present = ResizedAssignment(size, grid, count)(labels[0])
    expected = resized_segment_mean(features, labels, count, "bilinear")[0]
    assert_near(assignment @ features.flatten(1, 2)[0], expected, 1e-5)
    assert torch.equal(present[:, 0] == 0, (expected == 0).all(1)) and (present == 0).any()


@pytest.mark.parametrize("separable", [True, False])
def test_resized_positions_equal_the_models(separable):
    size, count, bias = (48, 40), 18, seeded(8, seed=3)
    table = sincos_positions(7, 8).view(7, 7, 8) if separable else seeded(7, 7, 8)
    labels = label_map(*size, count)
    found = ResizedPositions(table, bias, size, count)(labels[0])
    assert_near(found, resized_segment_mean((table + bias)[None], labels, count, "bicubic")[0], 1e-5)


@pytest.mark.parametrize(("budget", "chunks"), [(1, 3), (10**9, 1)])
def test_counts_do_not_depend_on_the_chunks(budget, chunks):
    vertical = torch.zeros(80, 20)
    for cell in range(20):
        vertical[max(0, 4 * cell - 2) : 4 * cell + 6, cell] = seeded(len(vertical[max(0, 4 * cell - 2) : 4 * cell + 6]))
    horizontal, labels = seeded(12, 3), label_map(80, 12, 9)
    one_hot = torch.nn.functional.one_hot(labels.long(), 9).float()
    expected = torch.einsum("nyxs,yi,xj->nijs", one_hot, vertical, horizontal).flatten(1, 2)
    counts = WindowedCounts(vertical, horizontal, 9, budget)
    assert len(counts.parts) == chunks
    assert_near(counts(labels), expected, 1e-5)  # with a batch
    assert_near(counts(labels[0]), expected[0], 1e-5)  # without
