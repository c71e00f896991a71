"""Partition and class-map measures against independent implementations and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import metrics as skmetrics
from sklearn.metrics import rand_score

from cast_sdk.errors import InputError
from cast_sdk.training.data.dense.bsds import read_annotations
from cast_sdk.training.metrics.partition import (
    BoundaryCounts,
    PartitionScores,
    boundary_counts,
    contingency,
    covering,
    match_boundaries,
    maximum_matching,
    partition_scores,
    rand_index,
    region_boundaries,
    summarise_hierarchy,
    variation_of_information,
)
from cast_sdk.training.metrics.semantic import ConfusionMatrix, image_jaccard

maps = hnp.arrays(np.int64, (7, 9), elements=st.integers(0, 5))


@given(maps, maps)
@settings(max_examples=60, deadline=None)
def test_random_partitions_against_scikit(first, second):
    table = contingency(first, second)
    assert table.sum() == first.size
    np.testing.assert_array_equal(contingency(first * 1_000_003 - 5, second), table)  # values carry no meaning
    np.testing.assert_allclose(rand_index(table), rand_score(first.ravel(), second.ravel()), atol=1e-12)
    expected = sum(skmetrics.variation_of_information(first, second))
    np.testing.assert_allclose(variation_of_information(table), expected, atol=1e-9)
    np.testing.assert_allclose(covering(table), brute_covering(first, second), atol=1e-12)


def brute_covering(truth, labels):
    total = 0.0
    for a in np.unique(truth):
        mask = truth == a
        total += mask.sum() * max(
            (mask & (labels == b)).sum() / (mask | (labels == b)).sum() for b in np.unique(labels)
        )
    return total / truth.size


def test_by_hand():
    truth = np.array([[0, 0, 1, 1]])
    one = np.zeros_like(truth)
    table = contingency(truth, one)
    assert covering(table) == 0.5  # both halves overlap the whole by 2/4
    assert rand_index(table) == pytest.approx(2 / 6)  # of 6 pairs only the two inside a half agree
    assert variation_of_information(table) == pytest.approx(1.0)  # one bit tells the halves apart
    same = contingency(truth, truth + 7)
    assert (covering(same), rand_index(same), variation_of_information(same)) == (1.0, 1.0, 0.0)
    finer = contingency(truth, np.array([[0, 1, 2, 2]]))
    assert covering(finer) == pytest.approx(0.75)  # half 1 at 1/2, half 2 at 1


def test_boundary_matching_is_one_to_one():
    line, double = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    line[:, 4] = True
    double[:, 3] = double[:, 5] = True
    mine, theirs = match_boundaries(line, double, 1.5)
    assert mine.sum() == theirs.sum() == 9  # eighteen pixels near, but each of the nine has one partner
    assert match_boundaries(line, double, 0.9)[0].sum() == 0
    assert match_boundaries(line, np.zeros_like(line), 3)[0].sum() == 0
    # A greedy choice of the nearest would leave one of these without a partner.
    a, b = np.zeros((1, 6), bool), np.zeros((1, 6), bool)
    a[0, [1, 3]], b[0, [2, 4]] = True, True
    assert match_boundaries(a, b, 1)[0].sum() == 2


@given(hnp.arrays(bool, (9, 8), elements=st.booleans()))
@settings(max_examples=60, deadline=None)
def test_matching_is_maximum(edges):
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    rows, columns = np.nonzero(edges)
    partner = maximum_matching(rows, columns, *edges.shape)
    chosen = np.flatnonzero(partner >= 0)
    assert edges[chosen, partner[chosen]].all() and len(set(partner[chosen])) == len(chosen)
    expected = maximum_bipartite_matching(csr_array(edges.astype(np.int8)), perm_type="column")
    assert len(chosen) == (expected >= 0).sum()


def test_boundaries_of_several_annotators():
    left, right = np.zeros((6, 8), int), np.zeros((6, 8), int)
    left[:, 2:] = 1
    right[:, 5:] = 1
    edges = region_boundaries(left)
    assert edges.sum() == 6 and edges[:, 1].all()
    counts = boundary_counts(edges, [edges, region_boundaries(right)], tolerance=0.11)  # 1.1 pixels
    assert counts == BoundaryCounts(matched=6, predicted=6, recalled=6, annotated=12)
    assert (counts.precision, counts.recall, counts.f) == (1.0, 0.5, pytest.approx(2 / 3))
    assert BoundaryCounts().f == 0.0


def test_boundary_counts_bound_the_distance_transform(data_dir):
    """Without the one-to-one rule more pixels match; real maps show both the bound and the stored boundaries."""
    from scipy.ndimage import distance_transform_edt

    files = sorted((data_dir / "bsds500" / "groundTruth" / "val").glob("*.mat"))[:2]
    for file in files:
        annotations = read_annotations(file)
        for annotation in annotations:
            np.testing.assert_array_equal(region_boundaries(annotation.labels), annotation.boundaries)
        first, second = (annotation.boundaries for annotation in annotations[:2])
        limit = 0.0075 * np.hypot(*first.shape)
        mine, theirs = match_boundaries(first, second, limit)
        near = (distance_transform_edt(~second)[first] <= limit).sum()
        assert mine.sum() == theirs.sum() and 0.9 * near <= mine.sum() <= near


def test_people_agree_with_themselves_and_more_than_with_noise(data_dir):
    file = sorted((data_dir / "bsds500" / "groundTruth" / "val").glob("*.mat"))[0]
    truths = [annotation.labels for annotation in read_annotations(file)]
    own = partition_scores(truths[0], truths[:1])
    assert (own.covering, own.rand, own.boundary.f) == (1.0, 1.0, 1.0) and own.information == 0.0
    other = partition_scores(truths[0], truths[1:])
    height, width = truths[0].shape
    grid = np.arange(height)[:, None] * 6 // height * 6 + np.arange(width) * 6 // width
    noise = partition_scores(grid, truths[1:])
    assert other.covering > noise.covering and other.information < noise.information
    assert other.boundary.f > noise.boundary.f and other.rand > noise.rand


def test_best_levels():
    def score(value, f):
        return PartitionScores(4, value, value, 1 - value, BoundaryCounts(f, 10, f, 10))

    images = [[score(0.9, 2), score(0.5, 8)], [score(0.2, 2), score(0.5, 4)], [score(0.3, 2), score(0.5, 6)]]
    result = summarise_hierarchy(images)
    assert result.best_level == {"covering": 1, "rand": 1, "information": 1, "f": 1}
    assert result.best_per_dataset["covering"] == pytest.approx(0.5)
    assert result.best_per_image["covering"] == pytest.approx((0.9 + 0.5 + 0.5) / 3)
    assert result.best_per_image["information"] == pytest.approx((0.1 + 0.5 + 0.5) / 3)
    assert result.best_per_image["f"] == pytest.approx(0.6)
    with pytest.raises(InputError, match="different numbers of levels"):
        summarise_hierarchy([images[0], images[1][:1]])


@given(
    st.lists(
        st.tuples(maps, hnp.arrays(np.int64, (7, 9), elements=st.sampled_from([0, 1, 2, 3, 4, 5, 255]))),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=30, deadline=None)
def test_class_maps_against_torchmetrics(images):
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

    confusion = ConfusionMatrix(6)
    for prediction, target in images:
        confusion.update(prediction, target)
    predictions, targets = (torch.from_numpy(np.stack(part)) for part in zip(*images, strict=True))
    options = {"num_classes": 6, "ignore_index": 255}
    if (targets != 255).any():
        jaccard = multiclass_jaccard_index(predictions, targets, average="macro", **options)
        assert confusion.mean_iou() == pytest.approx(float(jaccard), abs=1e-6)
        accuracy = multiclass_accuracy(predictions, targets, average="micro", **options)
        assert confusion.pixel_accuracy == pytest.approx(float(accuracy), abs=1e-6)
    assert confusion.mean_iou("zero") <= (confusion.mean_iou() if not np.isnan(confusion.mean_iou()) else 1)


def test_class_maps_by_hand():
    target, prediction = np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 2]])
    confusion = ConfusionMatrix(4)
    confusion.update(prediction, target)
    np.testing.assert_allclose(confusion.iou, [0.5, 0.5, np.nan, np.nan])
    assert (confusion.mean_iou(), confusion.mean_iou("zero")) == (0.5, 0.25)
    assert confusion.pixel_accuracy == pytest.approx(2 / 3) and confusion.mean_accuracy == 0.75
    assert image_jaccard(prediction, target, 4) == 0.5
    assert confusion.to_dict()["iou"] == [50.0, 50.0, None, None]
    with pytest.raises(InputError, match=r"0\.\.3"):
        confusion.update(np.full((1, 4), 4), target)
    with pytest.raises(InputError, match="size of its ground truth"):
        confusion.update(prediction[:, :3], target)
