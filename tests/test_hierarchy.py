"""Nesting, compaction and the segment tree, for any labels that a model can give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cast_sdk.errors import ArtifactError, InputError
from cast_sdk.hierarchy import Hierarchy


@st.composite
def composed(draw):
    """A label map with gaps and unused labels, and composed levels as the graph makes them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 40))
    used = rng.choice(count, size=rng.integers(1, count + 1), replace=False)
    superpixels = rng.choice(used, size=(draw(st.integers(1, 12)), draw(st.integers(1, 12)))).astype(np.int32)
    levels, labels, width = [], np.arange(count), count
    for _ in range(draw(st.integers(0, 4))):
        coarser = draw(st.integers(1, max(1, width)))
        labels = rng.integers(0, coarser, width)[labels]
        levels.append(labels.astype(np.int32))
        width = coarser
    return superpixels, levels


@given(composed())
@settings(max_examples=200, deadline=None)
def test_levels_nest_and_are_compact(case):
    superpixels, levels = case
    tree = Hierarchy.from_labels(superpixels, levels)
    assert tree.num_levels == len(levels)
    for level in range(tree.num_levels + 1):
        labels = tree.labels(level)
        assert labels.dtype == np.int32 and labels.shape == superpixels.shape
        assert np.array_equal(np.unique(labels), np.arange(tree.num_segments(level)))
        original = superpixels if level == 0 else levels[level - 1][superpixels]
        assert np.array_equal(tree.ids[level][labels], original)
        assert np.array_equal(tree.areas(level), np.bincount(labels.ravel()))
        if level < tree.num_levels:
            assert np.array_equal(tree.parents(level)[labels], tree.labels(level + 1))
            inside = [tree.children(level + 1, i) for i in range(tree.num_segments(level + 1))]
            assert np.array_equal(np.sort(np.concatenate(inside)), np.arange(tree.num_segments(level)))


def test_levels_that_part_again_are_refused():
    with pytest.raises(ArtifactError, match="level 2 splits a segment of level 1"):
        Hierarchy.from_labels(np.array([[0, 1, 2]]), [np.array([0, 0, 1]), np.array([0, 1, 1])])


@pytest.mark.parametrize(
    "superpixels, words",
    [
        (np.zeros((0, 4), int), r"int64 \[0, 4\]"),
        (np.zeros((2, 2)), "float64"),
        (np.full((2, 2), 3), r"labels 0\.\.3|labels 3\.\.3, and this model takes 0\.\.2"),
        (np.full((2, 2), -1), r"labels -1\.\.-1"),
    ],
)
def test_label_maps_that_do_not_fit(superpixels, words):
    with pytest.raises(InputError, match=words):
        Hierarchy.from_labels(superpixels, [np.zeros(3, int)])


def test_levels_that_do_not_exist():
    tree = Hierarchy.from_labels(np.array([[0, 1]]), [np.array([0, 0])])
    for call, words in (
        (lambda: tree.labels(2), r"choose 0\.\.1"),
        (lambda: tree.num_segments(-1), "level -1"),
        (lambda: tree.parents(1), "Level 1 is the coarsest and has no parents"),
        (lambda: tree.children(0, 0), "no children"),
    ):
        with pytest.raises(InputError, match=words):
            call()
