from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cast_sdk.errors import InputError
from cast_sdk.runtime.output import rle


@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=st.integers(-1, 5)))
@settings(max_examples=200, deadline=None)
def test_every_segment_comes_back(labels):
    masks = rle.encode_labels(labels, 6)
    for segment, mask in enumerate(masks):
        assert np.array_equal(rle.decode(mask), labels == segment)
        assert len(mask["counts"]) <= 1 or all(n > 0 for n in mask["counts"][1:])


def test_counts_run_down_the_columns_and_begin_with_zeros():
    labels = np.array([[0, 1, 1], [0, 0, 1]], np.int32)  # columns: 0 0 | 1 0 | 1 1
    assert rle.encode_labels(labels, 2) == [
        {"size": [2, 3], "counts": [0, 2, 1, 1, 2]},
        {"size": [2, 3], "counts": [2, 1, 1, 2]},
    ]


def test_counts_that_do_not_fill_the_mask():
    with pytest.raises(InputError, match="5 for 2 x 3"):
        rle.decode({"size": [2, 3], "counts": [5]})


@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=st.integers(-1, 5)))
@settings(max_examples=100, deadline=None)
def test_runs_are_as_few_as_can_be_and_make_the_map_again(labels):
    values, lengths = rle.runs(labels)
    assert values.dtype == labels.dtype and lengths.dtype == np.int64 and (lengths > 0).all()
    assert np.array_equal(np.repeat(values, lengths), labels.ravel()) and (values[1:] != values[:-1]).all()
