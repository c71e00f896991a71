"""Accuracy and consistency along a taxonomy against the reference's counting."""

import numpy as np
import pytest
from hcast_tools import HCAST

from cast_sdk.published_taxonomies import published_taxonomy
from cast_sdk.taxonomy import TaxonomyLevel, path_table
from cast_sdk.training.metrics.taxonomy import (
    PathTally,
    flat_scores,
    full_path_accuracy,
    level_accuracy,
    tree_inconsistency,
    weighted_average_precision,
)


def tree(name, case):
    """The published tree, or for the tiny one the tree of its true paths."""
    if name != "tiny3":
        return published_taxonomy(name)
    paths = dict(map(lambda row: (int(row[0]), row), case["tiny3/true"]))  # noqa: C417
    members = [tuple(int(paths[fine][level]) for fine in sorted(paths)) for level in (1, 2)]
    fine, middle, coarse = case["tiny3/classes"].tolist()
    return (
        TaxonomyLevel("fine", fine, 2),
        TaxonomyLevel("middle", middle, 3, (), members[0]),
        TaxonomyLevel("coarse", coarse, 4, (), members[1]),
    )


@pytest.mark.parametrize("name", ["cub200", "living17", "tiny3"])
def test_metrics_equal_the_reference(name):
    with np.load(HCAST / "hcast_metrics.npz") as file:
        case = dict(file)
    true, predicted = case[f"{name}/true"].astype(int), case[f"{name}/pred"].astype(int)
    levels = tree(name, case)
    np.testing.assert_allclose(level_accuracy(predicted, true), case[f"{name}/accuracy"])
    assert full_path_accuracy(predicted, true) == pytest.approx(float(case[f"{name}/fpa"]))
    assert tree_inconsistency(predicted, path_table(levels)) == pytest.approx(float(case[f"{name}/tice"]))
    wap = weighted_average_precision(case[f"{name}/accuracy"], case[f"{name}/classes"])
    assert wap == pytest.approx(float(case[f"{name}/wap_by_class_count"]))

    tally = PathTally(levels)  # the same from scores, in batches
    for rows in np.array_split(np.arange(len(true)), 3):
        scores = [np.eye(level.num_classes)[predicted[rows, n]] for n, level in enumerate(levels)]
        tally.add(scores, true[rows, 0])
    metrics = tally.metrics()
    names = [f"top1_{level.name}" for level in levels]
    assert list(metrics) == [*names, "fpa", "tice", "fpa_consistent", "wap_unverified"]
    np.testing.assert_allclose([metrics[key] for key in names], case[f"{name}/accuracy"])
    assert metrics["fpa"] == pytest.approx(float(case[f"{name}/fpa"]))
    assert metrics["tice"] == pytest.approx(float(case[f"{name}/tice"]))
    assert metrics["fpa"] <= 100 - metrics["tice"] + 1e-9


def test_a_flat_classifier_is_judged_by_the_sums_over_members():
    levels = (TaxonomyLevel("fine", 4, 3), TaxonomyLevel("coarse", 2, 4, (), (0, 0, 1, 1)))
    logits = np.log([[0.3, 0.3, 0.4, 0.0 + 1e-9]]) + 5  # the finest class is of group 1, the mass in group 0
    summed = flat_scores(logits, levels)
    np.testing.assert_allclose(np.exp(summed[1]), [[0.6, 0.4]], atol=1e-6)
    tally = PathTally(levels)
    tally.add([logits], np.array([2]))
    assert tally.metrics()["top1_fine"] == 100 and tally.metrics()["top1_coarse"] == 0
    assert tally.metrics()["tice"] == 100


def test_the_consistent_path_uses_all_heads():
    levels = (TaxonomyLevel("fine", 4, 3), TaxonomyLevel("coarse", 2, 4, (), (0, 0, 1, 1)))
    tally = PathTally(levels)
    fine = np.log([[0.1, 0.3, 0.35, 0.25]])  # alone: class 2
    coarse = np.log([[0.9, 0.1]])  # but the other group
    tally.add([fine, coarse], np.array([1]))
    assert tally.metrics()["fpa"] == 0 and tally.metrics()["tice"] == 100
    assert tally.metrics()["fpa_consistent"] == 100
