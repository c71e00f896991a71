"""Files of other programs, opened by those programs' own readers."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import sys
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from readers import read

from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.runtime.output.interchange.coco import to_coco
from cast_sdk.runtime.output.interchange.cvat import to_cvat
from cast_sdk.runtime.output.interchange.labelme import to_labelme
from cast_sdk.runtime.output.interchange.names import file_name, labels_of
from cast_sdk.runtime.result import Segmentation


def test_pycocotools_opens_coco_and_agrees(seg, dense, tmp_path, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    seg.save_as(tmp_path / "one.json", "coco", 2)
    (tmp_path / "two.json").write_text(json.dumps(to_coco([seg, dense], range(5))))
    one, two = coco.COCO(tmp_path / "one.json"), coco.COCO(tmp_path / "two.json")
    assert [image["file_name"] for image in two.imgs.values()] == ["cat.png", "cat.png"]
    assert {category["name"] for category in one.cats.values()} == {"level 2"}
    assert {"sky", "cat", "level 0", "level 4"} <= {category["name"] for category in two.cats.values()}
    labels, table = seg.labels(2), seg.features(2)
    for annotation in one.loadAnns(one.getAnnIds()):
        mask = one.annToMask(annotation).astype(bool)
        segment = annotation["segment"]
        assert np.array_equal(mask, labels == segment) and annotation["area"] == mask.sum()
        assert annotation["bbox"] == table["box"][segment].tolist() and annotation["parent"] == table["parent"][segment]
    assert len(two.getAnnIds(imgIds=1)) == sum(seg.num_segments(level) for level in range(5))
    assert {a["parent"] for a in two.loadAnns(two.getAnnIds()) if a["level"] == 4} == {None}


def test_coco_of_nothing():
    assert to_coco([], [1])["images"] == []


def test_geojson_is_valid_and_its_shapes_are_the_segments(seg, dense, tmp_path):
    geojson = pytest.importorskip("geojson")
    shapely = pytest.importorskip("shapely")
    from shapely.geometry import shape

    seg.save_as(tmp_path / "x.geojson", "geojson", 2)
    collection = geojson.loads((tmp_path / "x.geojson").read_text())
    assert collection.is_valid, collection.errors()
    table = seg.features(2)
    shapes = [shape(feature["geometry"]) for feature in collection["features"]]
    for feature, one in zip(collection["features"], shapes, strict=True):
        assert one.is_valid and one.area == feature["properties"]["area"] == table["area"][feature["id"]]
        assert feature["properties"]["parent"] == table["parent"][feature["id"]]
    whole = shapely.union_all(shapes)
    assert whole.area == seg.size[0] * seg.size[1]
    assert all(feature["properties"]["parent"] is None for feature in seg.to_geojson(4)["features"])
    assert {feature["properties"]["label"] for feature in dense.to_geojson(1)["features"]} <= {*dense.spec.class_names}


def test_labelme_opens_its_file(seg, photograph, tmp_path):
    shutil.copy(photograph, tmp_path)
    seg.save_as(tmp_path / "cat.json", "labelme", 2)
    dataclasses.replace(seg, source=None).save_as(tmp_path / "elsewhere.json", "labelme", 2)
    assert json.loads((tmp_path / "cat.json").read_text())["imageData"] is None
    for name in ("cat.json", "elsewhere.json"):
        found = read("labelme", tmp_path / name, tmp_path / "read.npz")
        assert len(found["masks"]) == seg.num_segments(2) and set(found["labels"]) == {"level 2"}
        for mask, segment in zip(found["masks"], found["groups"], strict=True):
            assert np.array_equal(mask, seg.labels(2) == segment)


ADDRESS = "https://host/photos/cat.png?token=***&w=3#top"


def test_labelme_holds_the_image_of_an_address(seg):
    data = to_labelme(dataclasses.replace(seg, source=ADDRESS), 2)
    assert data["imagePath"] == "cat.png"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data["imageData"]), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(picture, seg.frame)
    assert to_labelme(dataclasses.replace(seg, source=ADDRESS), 2, embed=False)["imageData"] is None


@pytest.mark.parametrize(
    "source, name",
    [(ADDRESS, "cat.png"), ("http://host/", "image_4.png"), ("a/b?c#d.png", "b?c#d.png"), (None, "image_4.png")],
)
def test_the_name_of_an_image(seg, source, name):
    assert file_name(dataclasses.replace(seg, source=source), 4) == name


def test_labels_are_the_classes_without_a_look_at_the_pixels(seg, dense, monkeypatch):
    found = [dense.class_name(number) for number in dense.features(3)["semantic"]]
    monkeypatch.setattr(Segmentation, "labels", None)
    assert labels_of(dense, 3) == found and len(set(found)) > 1
    assert labels_of(seg, 3) == ["level 3"] * seg.num_segments(3)
    for one in (seg, dense):
        with pytest.raises(InputError, match="no level 9"):
            labels_of(one, 9)


def test_labelme_without_the_frame(seg):
    gone = dataclasses.replace(seg, frame=None)
    assert to_labelme(gone, 1)["imageData"] is None
    with pytest.raises(InputError, match="was let go"):
        to_labelme(gone, 1, embed=True)


def test_datumaro_opens_cvat(dense, photograph, tmp_path):
    (tmp_path / "set" / "images").mkdir(parents=True)
    shutil.copy(photograph, tmp_path / "set" / "images")
    (tmp_path / "set" / "annotations.xml").write_text(to_cvat([dense], 2), encoding="utf-8")
    found = read("cvat", tmp_path / "set", tmp_path / "read.npz")
    semantic = dense.features(2)["semantic"]
    assert len(found["masks"]) == dense.num_segments(2)
    for mask, group, label in zip(found["masks"], found["groups"], found["labels"], strict=True):
        assert np.array_equal(mask, dense.labels(2) == group - 1)
        assert label == dense.spec.class_names[semantic[group - 1]]


def test_cvat_masks_are_the_segments(seg, tmp_path):
    seg.save_as(tmp_path / "annotations.xml", "cvat", 3)
    root = ElementTree.parse(tmp_path / "annotations.xml").getroot()
    image = root.find("image")
    labels = seg.labels(3)
    assert root.findtext("version") == "1.1" and image.get("name") == "cat.png"
    for mask in image.findall("mask"):
        left, top, width, height = (int(mask.get(key)) for key in ("left", "top", "width", "height"))
        runs = [int(run) for run in mask.get("rle").split(",")]
        cells = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
        whole = np.zeros(labels.shape, bool)
        whole[top : top + height, left : left + width] = cells
        assert np.array_equal(whole, labels == int(mask.get("group_id")) - 1)


def test_supervision_and_back(seg, dense, monkeypatch):
    sv = pytest.importorskip("supervision")
    for level in range(5):
        detections = seg.to_supervision(level)
        back = np.full(seg.size, -1)
        for mask, segment in zip(detections.mask, detections.data["segment"], strict=True):
            back[mask] = segment
        assert np.array_equal(back, seg.labels(level))
        assert np.array_equal(detections.area, seg.features(level)["area"])
        inclusive = sv.mask_to_xyxy(detections.mask)
        assert np.array_equal(inclusive[:, 2:] + 1, detections.xyxy[:, 2:])
    assert np.array_equal(dense.to_supervision(2).class_id, dense.features(2)["semantic"])
    annotated = sv.MaskAnnotator().annotate(seg.frame.copy(), seg.to_supervision(2))
    assert annotated.shape == seg.frame.shape and not np.array_equal(annotated, seg.frame)
    assert seg.to_supervision(2, masks=False).mask is None
    monkeypatch.setattr("cast_sdk.runtime.output.interchange.supervision.MOST_BYTES", 1000)
    with pytest.raises(InputError, match="masks=False"):
        seg.to_supervision(0)


def test_without_supervision(seg, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependencyError, match="pip install supervision"):
        seg.to_supervision(1)


def test_unknown_formats_and_levels(seg, tmp_path):
    with pytest.raises(InputError, match="no format 'voc'"):
        seg.save_as(tmp_path / "x", "voc", 2)
    with pytest.raises(InputError, match="no format \\['coco'\\]"):
        seg.save_as(tmp_path / "x", ["coco"], 2)
    for kind in ("coco", "cvat", "geojson", "labelme"):
        with pytest.raises(InputError, match="no level 9"):
            seg.save_as(tmp_path / "x", kind, 9)
    assert not list(tmp_path.iterdir())
