"""The averaging matrices that graphs for CPUs take: those of the models, and what is refused."""

import numpy as np
import pytest
import torch

from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.models.superpixel_ops import resized_assignment as expected_assignment
from cast_sdk.superpixels import assignment
from cast_sdk.superpixels.assignment import resized_assignment, taps


def label_map(height, width, count):
    """Random blocks of labels, of which every seventh is absent."""
    small = np.random.default_rng(0).integers(0, count, (-(-height // 3), -(-width // 5)))
    labels = np.kron(small, np.ones((3, 5), int))[:height, :width]
    return np.ascontiguousarray(np.where(labels % 7 == 3, labels - 1, labels).astype(np.int32))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("size", "grid"), [((64, 64), (8, 8)), ((50, 36), (7, 5)), ((24, 40), (3, 5)), ((9, 9), (1, 2))]
)
def test_the_matrix_is_that_of_the_models(size, grid, mode):
    labels, count = label_map(*size, 40), 41
    out = np.full((count, grid[0] * grid[1]), np.nan, np.float32)
    resized_assignment(labels, count, grid, mode, out)
    expected = expected_assignment(torch.from_numpy(labels)[None], count, grid, mode)[0].numpy()
    assert np.abs(out - expected).max() < 1e-6
    present = np.isin(np.arange(count), labels)
    assert not present.all() and not out[~present].any()
    assert np.abs(out[present].sum(1) - 1).max() < 1e-5


@pytest.mark.parametrize("wrong", [-1, 9, 2**31 - 1])
def test_labels_of_another_grid_are_refused(wrong):
    labels = np.zeros((16, 16), np.int32)
    labels[5, 7] = wrong
    with pytest.raises(InputError, match=r"do not lie in 0\.\.8"):
        resized_assignment(labels, 9, (2, 2), "bilinear", np.empty((9, 4), np.float32))


def test_weights_of_a_pixel_sum_to_one():
    for mode, count in (("bilinear", 2), ("bicubic", 4)):
        cells, weights = taps(28, 512, mode)
        assert cells.shape == weights.shape == (512, count)
        assert cells.min() == 0 and cells.max() == 27
        assert np.abs(weights.sum(1) - 1).max() < 1e-6


def test_without_the_kernel_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(assignment, "native_library", lambda: None)
    monkeypatch.setattr(assignment, "_function", assignment._function.__wrapped__)
    with pytest.raises(MissingDependencyError, match="own kernel") as caught:
        resized_assignment(np.zeros((8, 8), np.int32), 1, (1, 1), "bilinear", np.empty((1, 1), np.float32))
    assert "without --target cpu" in caught.value.remedy
