"""One row per segment, the chain at a point, and the data frame."""

from __future__ import annotations

import dataclasses
import sys

import cv2
import numpy as np
import pytest

from cast_sdk.errors import InputError, MissingDependencyError


@pytest.mark.parametrize("level", range(5))
@pytest.mark.parametrize("which", ["seg", "cropped"])
def test_features_are_what_the_masks_say(which, level, request):
    result = request.getfixturevalue(which)
    table = result.features(level)
    labels = result.labels(level)
    assert {len(column) for column in table.values()} == {result.num_segments(level)}
    for index in range(result.num_segments(level)):
        rows, columns = np.nonzero(labels == index)
        assert table["id"][index] == index and table["area"][index] == len(rows)
        x, y, width, height = table["box"][index]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        assert np.allclose(table["centroid"][index], (columns.mean() + 0.5, rows.mean() + 0.5))
        assert np.allclose(table["colour"][index], result.frame[rows, columns].mean(0)[::-1])
    expected = result.parents(level) if level < 4 else np.full(len(table["id"]), -1)
    assert np.array_equal(table["parent"], expected)
    assert table["area"].sum() == (labels >= 0).sum()


def test_columns_that_depend_on_what_there_is(seg, dense):
    assert set(seg.features(2)) == {"id", "parent", "area", "box", "centroid", "colour"}
    assert "colour" not in dataclasses.replace(seg, frame=None).features(2)
    assert "token" in dense.features(3) and "token" not in dense.features(4)


def test_tokens_and_classes_of_the_segments(dense):
    hierarchy = dense.hierarchy
    for level in range(5):
        table = dense.features(level)
        for segment in range(dense.num_segments(level)):
            inside = np.flatnonzero(hierarchy.members[level] == segment)
            weights = hierarchy.areas(0)[inside]
            scores = dense.outputs["dense"][hierarchy.ids[0][inside]]
            assert np.allclose(table["scores"][segment], np.average(scores, axis=0, weights=weights), atol=1e-5)
            votes = np.bincount(scores.argmax(1), weights=weights)
            assert votes[table["semantic"][segment]] == votes.max()
            if level < 4:
                clusters = dense.outputs[f"level{level}"] if level else np.arange(len(dense.outputs["dense"]))
                tokens = dense.outputs[f"tokens{level + 1}"][clusters[hierarchy.ids[0][inside]]]
                expected = (tokens.astype(np.float64).sum(0) / len(tokens)).astype(np.float32)
                assert np.array_equal(table["token"][segment], expected)


def test_class_scores_are_there_where_the_model_has_them(photograph, tmp_path):
    from export_tools import small_model

    from cast_sdk import Runtime
    from cast_sdk.models import save_native

    for name in ("segmenter_cast_small", "cast_seg_small segmentation", "cast_small"):
        save_native(small_model(name), tmp_path / "m.safetensors")
        with Runtime(tmp_path / "m.safetensors", device="cpu") as runtime:
            result = runtime.segment(photograph)
        if name != "segmenter_cast_small":
            assert not {"scores", "semantic"} & result.features(1).keys()
            continue
        finest = result.features(0)
        assert finest["scores"].shape == (result.num_segments(0), result.spec.num_classes)
        assert np.array_equal(finest["scores"].argmax(1), finest["semantic"])
        weights = result.hierarchy.areas(0)
        for level in range(1, 5):
            table = result.features(level)
            for segment, scores in enumerate(table["scores"]):
                inside = result.hierarchy.members[level] == segment
                assert np.allclose(
                    scores, np.average(finest["scores"][inside], axis=0, weights=weights[inside]), atol=1e-5
                )


def test_tracks_are_in_the_table(photograph):
    from cast_sdk import Runtime

    with Runtime() as runtime:
        result = next(iter(runtime.stream([cv2.imread(str(photograph))], track=True)))
    assert np.array_equal(result.features(2)["track"], result.tracks(2))


@pytest.mark.parametrize("which", ["seg", "cropped"])
def test_the_chain_at_a_point_is_that_of_the_maps(which, request):
    result = request.getfixturevalue(which)
    maps = np.stack([result.labels(level) for level in range(5)])
    height, width = result.size
    for x, y in [(0, 0), (width - 1, height - 1), (width // 2, height // 2), (17, 90), (width - 0.25, 3.9)]:
        assert result.at(x, y) == tuple(maps[:, int(y), int(x)].tolist())
    for x, y in ((-1, 0), (width, 0), (0, height), (float("nan"), 0), ("1", 0)):
        with pytest.raises(InputError, match="outside the frame"):
            result.at(x, y)


def test_a_frame_smaller_than_the_model(seg):
    """Segments that lose all their pixels keep their row."""
    small = dataclasses.replace(seg, geometry=dataclasses.replace(seg.geometry, frame=(5, 7)), frame=None)
    table = small.features(0)
    empty = table["area"] == 0
    assert (
        empty.any() and np.isnan(table["centroid"][empty]).all() and len(small.to_coco(0)["annotations"]) < len(empty)
    )


def test_a_data_frame(dense):
    pytest.importorskip("pandas")
    frame = dense.to_dataframe(2)
    assert list(frame.columns) == [
        *("id", "parent", "area", "x", "y", "width", "height", "centroid_x", "centroid_y"),
        *("red", "green", "blue", "token", "semantic", "scores"),
    ]
    table = dense.features(2)
    assert len(frame) == dense.num_segments(2) and frame.loc[1, "area"] == table["area"][1]
    assert np.array_equal(frame.loc[1, "token"], table["token"][1])


def test_without_pandas(seg, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match="pip install pandas"):
        seg.to_dataframe(1)
