"""Paths of classes from the scores of heads, and every place that shows them."""

import dataclasses
import json

import numpy as np
import pytest
from standin import StandIn

from cast_sdk.errors import InputError
from cast_sdk.runtime.camera.packet import pack, unpack
from cast_sdk.runtime.output.recorder import frame_record
from cast_sdk.runtime.taxonomy import path_text
from cast_sdk.taxonomy import TaxonomyLevel

# The stand-in's classes are blue, green and red.
TREE = (TaxonomyLevel("hue", 3, 3), TaxonomyLevel("warmth", 2, 4, ("cold, cool", "warm"), (0, 0, 1)))
FINE, COARSE = (0.2, 0.35, 0.45), (0.7, 0.3)  # the heads disagree: red is warm


def result(tree=TREE, fine=FINE, coarse=COARSE):
    frame = np.random.default_rng(0).integers(0, 255, (96, 120, 3), np.uint8)
    found = StandIn().segment(frame)
    found.spec = dataclasses.replace(found.spec, taxonomy=tree)
    with np.errstate(divide="ignore"):
        found.outputs["logits"], found.outputs["logits2"] = (np.log(np.float32(head)) for head in (fine, coarse))
    return found


def test_heads_are_independent_and_the_tree_is_kept_on_request():
    seg = result()
    assert [(one.level, one.class_id, one.name) for one in seg.path()] == [
        ("warmth", 0, "cold, cool"),
        ("hue", 2, "red"),
    ]
    assert np.allclose([one.probability for one in seg.path()], [0.7, 0.45])
    consistent = seg.path(consistent=True)
    assert [one.class_id for one in consistent] == [0, 1]  # green and cold: 0.35 * 0.7 beats 0.45 * 0.3
    paths = np.array([0.2 * 0.7, 0.35 * 0.7, 0.45 * 0.3])
    paths /= paths.sum()
    assert np.allclose([one.probability for one in consistent], [paths[0] + paths[1], paths[1]])


def test_a_class_of_no_probability_lies_on_no_path():
    consistent = result(fine=(0.0, 0.4, 0.6), coarse=(1.0, 0.0)).path(consistent=True)
    assert [(one.class_id, one.probability) for one in consistent] == [(0, 1.0), (1, 1.0)]


def test_top_of_a_level():
    seg = result()
    assert [entry[:2] for entry in seg.top(2)] == [(2, "red"), (1, "green")]
    assert seg.top(1) == seg.top(1, level=1) == seg.top(1, level="hue")
    assert [entry[1] for entry in seg.top(level="warmth")] == ["cold, cool", "warm"]
    for level in (0, 3, "family"):
        with pytest.raises(InputError, match=r"has no level(.|\n)*hue, warmth"):
            seg.top(level=level)


def test_a_model_without_a_taxonomy_has_one_level_and_no_path():
    seg = StandIn().segment(np.zeros((20, 20, 3), np.uint8))
    assert seg.path() == [] and seg.path(consistent=True) == []
    assert len(seg.top(3, level=1)) == 3 and "path" not in seg.to_dict()
    with pytest.raises(InputError, match="no level 2"):
        seg.top(level=2)


def test_without_the_tree_there_is_no_consistent_path():
    seg = result((TREE[0], dataclasses.replace(TREE[1], members=())))
    assert len(seg.path()) == 2 and "consistent_path" not in seg.to_dict()
    assert path_text(seg) == "cold > red 45%"
    with pytest.raises(InputError, match="does not know which classes belong together"):
        seg.path(consistent=True)


def test_json_recordings_packets_and_pictures_have_it():
    seg = result()
    data = json.loads(seg.to_json())
    assert data["path"] == [
        {"level": "warmth", "class_id": 0, "name": "cold, cool", "probability": 0.7},
        {"level": "hue", "class_id": 2, "name": "red", "probability": 0.45},
    ]
    assert [entry["class_id"] for entry in data["consistent_path"]] == [0, 1]
    assert frame_record(seg)["path"] == data["path"]
    header, _, _ = unpack(pack(seg))
    assert [entry[:2] for entry in header["path"]] == [["warmth", "cold"], ["hue", "green"]]
    assert path_text(seg) == "cold > green 47%"
    drawn = seg.plot()
    seg.spec = dataclasses.replace(seg.spec, taxonomy=())
    assert not np.array_equal(drawn, seg.plot())
