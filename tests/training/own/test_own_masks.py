"""A person's masks: three layouts give the same class maps."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from own_data import NAMES, scene, write_coco, write_index, write_labelme
from PIL import Image

from cast_sdk.errors import InputError
from cast_sdk.training.own.dense.base import split_of
from cast_sdk.training.own.dense.coco import decode_counts
from cast_sdk.training.own.dense.finding import find_masked
from cast_sdk.training.own.dense.preparing import look_at, split_images
from cast_sdk.training.own.splitting import part_named, settle


def maps(masked):
    split = split_of(masked, np.arange(len(masked)))
    return {masked.images[at].stem: split.read(at) for at in range(len(split))}


@pytest.mark.parametrize("kind", ["index", "grey", "polygon", "runs", "compressed", "labelme"])
def test_layouts_agree(tmp_path, kind):
    if kind in ("index", "grey"):
        write_index(tmp_path, 4, palette=kind == "index")
    elif kind == "labelme":
        write_labelme(tmp_path, 4)
    else:
        write_coco(tmp_path, 4, kind)
    masked = find_masked(tmp_path)
    assert masked.class_names == NAMES  # "never used" is no class
    if kind == "index":
        assert masked.palette[1] == (200, 60, 50)
    for number, (image, label) in ((int(stem), pair) for stem, pair in maps(masked).items()):
        expected = scene(number)
        np.testing.assert_array_equal(image, expected[0])
        # OpenCV's outlines include the pixels on them.
        assert (label != expected[1]).sum() <= (0 if kind not in ("polygon", "labelme") else 2 * (48 + 40 + 16 + 64))
        if kind in ("polygon", "labelme"):
            inner = label[1:-1, 1:-1] == expected[1][1:-1, 1:-1]
            assert inner.mean() > 0.97


def test_pixels_outside_can_be_left_out(tmp_path):
    masked = find_masked(write_labelme(tmp_path, 2), "ignore")
    assert masked.class_names == NAMES[1:]
    assert {255} < set(np.unique(maps(masked)["0"][1]).tolist())


def test_splits_of_folders(tmp_path):
    for part in ("train", "val"):
        write_index(tmp_path / part, 2)
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    masked = find_masked(tmp_path)
    assert masked.split is not None and masked.split.tolist() == [0, 0, 1, 1]


def test_what_is_refused(tmp_path):
    with pytest.raises(InputError, match="no images with masks"):
        (tmp_path / "nothing").mkdir()
        find_masked(tmp_path / "nothing")
    colours = write_index(tmp_path / "colours", 2)
    Image.fromarray(scene(0)[0]).save(colours / "masks" / "0.png")
    with pytest.raises(InputError, match="colour image"):
        find_masked(colours)
    nameless = write_index(tmp_path / "nameless", 2)
    (nameless / "classes.txt").write_text("sky\n")
    with pytest.raises(InputError, match=r"values without a name.*1, 2"):
        find_masked(nameless)
    lost = write_coco(tmp_path / "lost", 2)
    (lost / "images" / "1.png").unlink()
    with pytest.raises(InputError, match=r"1 images of instances.json are not there, first 1.png"):
        find_masked(lost)
    line = write_labelme(tmp_path / "line", 2)
    content = json.loads((line / "0.json").read_text())
    content["shapes"][0] |= {"shape_type": "line", "points": [[0, 0], [5, 5]]}
    (line / "0.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="encloses no pixels: line of 2 points"):
        find_masked(line)


def test_a_mask_of_another_size_is_found_beforehand(tmp_path):
    write_index(tmp_path, 3)
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "masks" / "1.png")
    masked = find_masked(tmp_path)
    with pytest.raises(InputError, match=r"(?s)1 of 3 images or their masks.*another size"):
        look_at(masked, "error")
    kept, survey = look_at(masked, "skip")
    assert len(kept) == 2 and len(survey.counts) == 2 and survey.short_side == 96
    assert any("left out (1): images/1.png" in note for note in kept.notes)


def test_compressed_runs_equal_pycocotools():
    from pycocotools import mask as coco

    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.asfortranarray(rng.random((37, 53)) < rng.random(), np.uint8)
        encoded = coco.encode(mask)
        runs = decode_counts(encoded["counts"])
        flat = np.repeat(np.arange(len(runs)) % 2, runs)
        np.testing.assert_array_equal(flat.reshape(53, 37).T, mask)


def test_no_class_loses_its_last_training_image():
    present = np.array([[True, False, True]] + [[True, True, False]] * 9)
    for seed in range(10):
        split = split_images(present, 0.3, seed)
        assert split[0] == 0 and split.sum() == 3
    with pytest.raises(InputError, match="no other image has"):
        split_images(np.eye(3, dtype=bool), 0.3, 0)


def test_copies_stay_on_one_side():
    present = np.ones((12, 2), bool)
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    for seed in range(10):
        split = split_images(present, 0.3, seed, groups)
        assert (split[::2] == split[1::2]).all() and split.sum() == 4


@pytest.mark.parametrize("kind", ["index", "coco", "labelme"])
def test_a_test_part_is_neither_trained_on_nor_does_it_undo_the_split(tmp_path, kind):
    for part in ("train", "val", "test"):
        if kind == "coco":
            write_coco(tmp_path / part, 3)
            (tmp_path / part / "instances.json").rename(tmp_path / f"instances_{part}2017.json")
            (tmp_path / part / "images").rename(tmp_path / f"{part}2017")
        else:
            {"index": write_index, "labelme": write_labelme}[kind](tmp_path / part, 3)
    masked = find_masked(tmp_path)
    assert masked.split is not None and sorted(masked.split.tolist()) == [0] * 3 + [1] * 3
    for name, part in zip(masked.names, masked.split, strict=True):
        assert name.startswith(("train", "val")[part]), name
    assert "images of test are not used (3)" in masked.notes


def test_a_split_that_is_not_whole_is_made_anew_and_said():
    used, split, notes = settle([0, 1, None])
    assert used.tolist() == [0, 1, 2] and split is None and "images outside of train and val (1)" in notes[0]
    used, split, notes = settle([2, 1, 1])
    assert used.tolist() == [0, 1, 2] and split is None and "no name says train" in notes[0]
    assert settle([None, None])[1:] == (None, [])
    assert settle([0, 2, 0])[0].tolist() == [0, 2]
    assert [part_named(name) for name in ("train2017", "instances_val", "Testing", "contest", "street")] == [
        0, 1, 2, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("write", [write_coco, write_labelme])
def test_damaged_annotations_are_named(tmp_path, write):
    write(tmp_path, 3)
    file = min(tmp_path.glob("*.json"))
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"{file.name} is not JSON"):
        find_masked(tmp_path)
    content = json.loads(whole)
    lists = {"categories": [{"id": 1}]} if write is write_coco else {"shapes": [{"points": []}]}
    file.write_text(json.dumps(content | lists))
    with pytest.raises(InputError, match=rf"of .*{file.name} is not a list of objects with"):
        find_masked(tmp_path)
    file.write_text(whole)
    (tmp_path / "._0.json").write_bytes(b"\xff\x00")  # of another system, hidden
    assert len(find_masked(tmp_path)) == 3


def test_images_without_labelme_files_are_told(tmp_path):
    write_labelme(tmp_path, 3)
    (tmp_path / "2.json").unlink()
    assert "images without a JSON file are left out (1)" in find_masked(tmp_path).notes


def test_images_of_coco_may_lie_elsewhere(tmp_path):
    write_coco(tmp_path / "a", 2)
    (tmp_path / "a" / "images").rename(tmp_path / "b")
    file = tmp_path / "a" / "instances.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["file_name"] = str(tmp_path / "b" / image["file_name"])
    file.write_text(json.dumps(content))
    assert find_masked(tmp_path / "a").names == [str(tmp_path / "b" / f"{at}.png") for at in range(2)]


def changed(write, root, change):
    """The first annotation file of a layout after a change to what it holds."""
    write(root, 4)
    file = min(root.glob("*.json"))
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return root


def first_mask(segmentation):
    return lambda content: content["annotations"][0].update(segmentation=segmentation)


DAMAGED = {
    "a box alone": (first_mask([]), "has no mask, a box at most"),
    "no mask": (lambda content: content["annotations"][0].pop("segmentation"), "has no mask, a box at most"),
    "two corners": (first_mask([[1, 2, 3, 4]]), "neither polygons of three corners or more nor run lengths"),
    "text": (first_mask([["a"] * 6]), "neither polygons"),
    "ragged": (first_mask([[1, 2, 3, 4, 5, 6], [1, [2]]]), "neither polygons"),
    "counts of text": (first_mask({"size": [96, 128], "counts": [5, "x"]}), "no whole numbers"),
    "counts of one": (first_mask({"size": [96, 128], "counts": 7}), "neither polygons"),
    "size of one": (first_mask({"size": 5, "counts": [5]}), "neither polygons"),
    "another size": (first_mask({"size": [10**9, 10**9], "counts": [10**18]}), "has another size than its image"),
    "nan": (first_mask([[float("nan")] * 6]), "no places in the image"),
    "far away": (first_mask([[1e300] * 6]), "no places in the image"),
    "category": (lambda content: content["annotations"][0].update(category_id=[1]), "neither a number nor a name"),
    "image": (lambda content: content["annotations"][0].update(image_id={}), "neither a number nor a name"),
    "images of one id": (lambda content: content["images"][1].update(id=1), "several images of one id: 1"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_coco_file_that_is_damaged_inside_is_refused(tmp_path, name):
    change, message = DAMAGED[name]
    with pytest.raises(InputError, match=f"(?s){message}"):
        look_at(find_masked(changed(write_coco, tmp_path, change)), "error")


def test_small_things_lie_on_top_whatever_a_coco_file_says_of_areas(tmp_path):
    expected = maps(find_masked(write_coco(tmp_path / "plain", 4)))

    def without(content):
        for at, annotation in enumerate(content["annotations"]):
            annotation["area"] = ("unknown", 1e9 * (annotation["category_id"] == 20), None)[at % 3]

    found = maps(find_masked(changed(write_coco, tmp_path / "other", without)))
    for number, (_, label) in expected.items():
        np.testing.assert_array_equal(found[number][1], label)


def test_categories_of_one_name_are_one_class_and_ids_may_be_words(tmp_path):
    def one_name(content):
        content["categories"][1]["name"] = "box"

    assert find_masked(changed(write_coco, tmp_path / "same", one_name)).class_names == ("background", "box")

    def words(content):
        content["categories"][1]["id"] = "p"
        for annotation in content["annotations"]:
            annotation["category_id"] = {10: 10, 20: "p"}[annotation["category_id"]]
        content["annotations"][0]["image_id"] = 99

    masked = find_masked(changed(write_coco, tmp_path / "words", words))
    assert masked.class_names == NAMES and "annotations of images that are not listed are left out (1)" in masked.notes


def test_masks_of_labelmes_tools(tmp_path):
    stamp = np.arange(20 * 30).reshape(20, 30) % 3 == 0
    buffer = io.BytesIO()
    Image.fromarray(stamp).save(buffer, "PNG")

    def one(content, left=10, label="box"):
        encoded = base64.b64encode(buffer.getvalue()).decode()
        corners = [[left, 12], [left + 29, 31]]
        content["shapes"] = [{"label": label, "shape_type": "mask", "points": corners, "mask": encoded}]

    found = maps(find_masked(changed(write_labelme, tmp_path / "inside", one)))["0"][1]
    expected = np.zeros((96, 128), np.uint8)
    expected[12:32, 10:40] = stamp
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match=r"(?s)does not lie within its image.*30 x 20 pixels from 110, 12"):
        maps(find_masked(changed(write_labelme, tmp_path / "outside", lambda content: one(content, 110))))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape_type": "linestrip"}, "encloses no pixels: linestrip of 2 points"),
        ({"points": [[1, 2], [3]]}, "is damaged: rectangle, label 'box'"),
        ({"points": "abc"}, "is damaged"),
        ({"points": None}, "is damaged"),
        ({"shape_type": "mask", "mask": "!"}, "is damaged: mask"),
        ({"shape_type": "mask"}, r"(?s)is damaged: mask.*KeyError"),
        ({"label": ["x"]}, "A label of .* is no text"),
    ],
)
def test_a_shape_of_labelme_that_covers_nothing_is_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        find_masked(changed(write_labelme, tmp_path, lambda content: content["shapes"][0].update(change)))


def test_masks_of_two_values(tmp_path):
    """0 and 255 are what many programs write for no and yes; one bit a pixel is what others do."""
    write_index(tmp_path, 3, palette=False)
    (tmp_path / "classes.txt").unlink()
    labels = {file: np.asarray(Image.open(file)) > 0 for file in (tmp_path / "masks").iterdir()}
    for file, label in labels.items():
        Image.fromarray(label).save(file)
    masked = find_masked(tmp_path)
    assert masked.class_names == ("class 0", "class 1")
    for file, label in labels.items():
        np.testing.assert_array_equal(maps(masked)[file.stem][1], label)
        Image.fromarray(label.astype(np.uint8) * 255).save(file)
    with pytest.raises(InputError, match=r"(?s)have the values 0 and 255 only, and 255 does not count.*such as 1"):
        find_masked(tmp_path)


def test_masks_that_a_jpeg_has_changed_are_refused(tmp_path):
    write_index(tmp_path, 3, palette=False)
    for file in list((tmp_path / "masks").iterdir()):
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()
    with pytest.raises(InputError, match="is a JPEG, whose compression changes class numbers"):
        find_masked(tmp_path)


def test_names_in_a_file_with_a_byte_order_mark(tmp_path):
    write_index(tmp_path, 2)
    (tmp_path / "classes.txt").write_text("\ufeff" + "\n".join(NAMES))
    assert find_masked(tmp_path).class_names == NAMES


STRANGE = [None, -1, 1e308, float("nan"), "", "x", [], {}, [[]], [None], True, {"a": 1}, [1, 2, 3], 2**70, "a\0b"]


def places(content, path=()):
    """Ways to every part of what a JSON file holds."""
    yield path
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, part in inside:
        yield from places(part, (*path, key))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["polygon", "runs", "compressed", "labelme"])
def test_whatever_an_annotation_file_holds_is_read_or_refused(tmp_path, kind):
    root = write_labelme(tmp_path, 2) if kind == "labelme" else write_coco(tmp_path, 2, kind)
    file = min(root.glob("*.json"))
    whole = file.read_text()
    everywhere, rng = list(places(json.loads(whole)))[1:], np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        content = json.loads(whole)
        *way, last = everywhere[rng.integers(len(everywhere))]
        parent = content
        for key in way:
            parent = parent[key]
        if isinstance(parent, dict) and rng.random() < 0.15:
            del parent[last]
        else:
            parent[last] = STRANGE[rng.integers(len(STRANGE))]
        file.write_text(json.dumps(content))
        try:
            look_at(find_masked(root), "error")
        except InputError:
            refused += 1
    assert refused > 50
