"""Tables of classes and their parents, and the official layouts of the published data sets."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from cast_sdk.errors import InputError
from cast_sdk.published_taxonomies import published_taxonomy, source_classes
from cast_sdk.taxonomy import path_table
from cast_sdk.training.data.prepare import taxonomy as prepare
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.data.taxonomy import taxonomy_for
from cast_sdk.training.prepare_data import main

TABLE = """species,family,order
tern,gulls,shorebirds
jay,corvids,passerines
crow,corvids,passerines
"""


def table(tmp_path, text=TABLE):
    path = tmp_path / "tree.csv"
    path.write_text(text)
    return str(path)


def test_a_table_becomes_levels_in_the_order_of_the_data(tmp_path):
    levels = taxonomy_for(table(tmp_path), ["crow", "jay", "tern"])
    assert [(level.name, level.num_classes, level.stage) for level in levels] == [
        ("species", 3, 2),
        ("family", 2, 3),
        ("order", 2, 4),
    ]
    assert levels[1].class_names == ("corvids", "gulls") and levels[1].members == (0, 0, 1)
    assert path_table(levels).tolist() == [[0, 0, 0], [1, 0, 0], [2, 1, 1]]
    two = taxonomy_for(table(tmp_path, "a,b\nx,1\ny,2\n"), ["x", "y"])
    assert [level.stage for level in two] == [3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("species\ncrow\n", "two or three levels"),
        ("a,b,c,d\nw,x,y,z\n", "two or three levels"),
        ("", "two or three levels"),
        (TABLE + "gull,gulls\n", "Line 5"),
        (TABLE + "crow,corvids,passerines\n", "has crow twice"),
        (TABLE + "owl,owls,owls\n", r"1 not in the data: owl"),
        (TABLE.replace("jay,corvids,passerines\n", ""), "1 missing in the table: jay"),
        (TABLE.replace("jay,corvids,passerines", "jay,corvids,shorebirds"), "two parents .*shorebirds and passerines"),
        ("a,b\ncrow,x\njay,x\ntern,x\n", "has 1 class"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=f"(?s){message}"):
        taxonomy_for(table(tmp_path, text), ["crow", "jay", "tern"])


def test_names_are_explained():
    with pytest.raises(InputError, match=r"(?s)cub200.*tiny_imagenet64"):
        taxonomy_for("birds", ["a", "b"])
    with pytest.raises(InputError, match="has 3 classes, CUB-200-2011 has 200"):
        taxonomy_for("cub200", ["a", "b", "c"])
    with pytest.raises(InputError, match="group by group"):
        taxonomy_for("living17", sorted(source_classes("living17")))


def test_published_trees_take_the_names_of_the_data():
    names = [f"{number:03d}.bird" for number in range(200)]
    assert taxonomy_for("cub200", names)[0].class_names == tuple(names)
    folders = [f"{number:03d}_{wnid}" for number, wnid in enumerate(source_classes("living17"))]
    assert "eft" in taxonomy_for("living17", folders)[0].class_names


def test_the_table_of_tiny_imagenet_names_its_classes(data_dir):
    classes = open_source(data_dir / "tiny_imagenet64", "val").classes
    levels = taxonomy_for("tiny_imagenet64", classes)
    assert [level.num_classes for level in levels] == [64, 15, 4]
    kinds = levels[2].class_names
    assert kinds[levels[2].members[classes.index("goldfish")]] == "animal"


# official layouts -----------------------------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


@pytest.fixture
def cub(tmp_path):
    root = tmp_path / "CUB_200_2011"
    lines, split = [], []
    for number in range(400):
        name = f"{number // 2 + 1:03d}.Bird_{number // 2}/image_{number}.jpg"
        touch(root / "images" / name)
        lines.append(f"{number + 1} {name}")
        split.append(f"{number + 1} {(number + 1) % 2}")
    (root / "images.txt").write_text("\n".join(lines))
    (root / "train_test_split.txt").write_text("\n".join(split))
    return root


@pytest.mark.parametrize("copy", [False, True])
def test_cub(cub, tmp_path, copy):
    extra = ["--copy"] if copy else []
    for _ in range(2):  # what is there is kept
        done = run("cub200", "--data", cub, "--out", tmp_path / "out", *extra)
        assert done.exit_code == 0, done.output
        assert "200 images, 200 classes" in done.output and "taxonomy.tree=cub200" in done.output
    source = open_source(tmp_path / "out", "train")
    assert source.classes[0] == "001.Bird_0" and len(source) == 200 and source.read(0) == b"x"
    assert (tmp_path / "out/train/001.Bird_0/image_0.jpg").is_symlink() != copy
    assert not (tmp_path / "out/train/001.Bird_0/image_1.jpg").exists()
    assert path_table(taxonomy_for("cub200", source.classes)).shape == (200, 3)


def test_missing_images_are_named_before_anything_is_written(cub, tmp_path):
    (cub / "images/001.Bird_0/image_0.jpg").unlink()
    done = run("cub200", "--data", cub, "--out", tmp_path / "out")
    assert done.exit_code == 1 and "1 of the data set's files are missing for train" in done.output
    assert not (tmp_path / "out").exists()
    (cub / "train_test_split.txt").unlink()
    assert "There is no file" in run("cub200", "--data", cub, "--out", tmp_path / "out").output


def test_aircraft_in_the_published_order(tmp_path):
    names = published_taxonomy("aircraft")[0].class_names
    root = tmp_path / "data"
    for split in ("trainval", "test"):
        lines = []
        for number, name in enumerate(sorted(names)):
            touch(root / "images" / f"{split}{number}.jpg")
            lines.append(f"{split}{number} {name}")
        (root / f"images_variant_{split}.txt").write_text("\n".join(lines))
    done = run("aircraft", "--data", root, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    source = open_source(tmp_path / "out", "val")
    assert tuple(source.classes) == names and len(source) == 100
    assert source.names[source.labels.tolist().index(0)].endswith(f"test{sorted(names).index(names[0])}.jpg")
    (root / "images_variant_test.txt").write_text("test0 Zeppelin\n")
    assert "names 'Zeppelin'" in run("aircraft", "--data", root, "--out", tmp_path / "out2").output


def test_breeds_from_imagenet(tmp_path):
    wnids = source_classes("living17")
    for split in ("train", "val"):
        for wnid in (*wnids, "n99999999"):
            touch(tmp_path / "Img" / split / wnid / "a.JPEG")
    done = run("breeds", "--set", "living17", "--data", tmp_path / "Img", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    source = open_source(tmp_path / "out", "train")
    assert [name[4:] for name in source.classes] == list(wnids)
    assert taxonomy_for("living17", source.classes)[1].members[:4] == (0, 0, 1, 1)
    missing = run("breeds", "--set", "entity13", "--data", tmp_path / "Img", "--out", tmp_path / "out2")
    assert missing.exit_code == 1 and "files are missing for train" in missing.output


def inat21_folders(table):
    return [
        f"{fine:05d}_Animalia_Chordata_Aves_Order{coarse}_Family{middle}_Genus_species{fine}"
        for fine, middle, coarse in table
    ]


def test_inat21_is_checked_against_its_folders(tmp_path):
    table = path_table(published_taxonomy("inat21_mini"))
    names = inat21_folders(table)
    for split in ("train_mini", "val"):
        for name in names:
            (tmp_path / "data" / split / name).mkdir(parents=True)
    plan = prepare.inat21_mini(tmp_path / "data")
    assert list(plan["train"]) == names and plan["val"][names[3]] == tmp_path / "data" / "val" / names[3]
    moved = names[7].replace("Family", "Family9")
    (tmp_path / "data/train_mini" / names[7]).rename(tmp_path / "data/train_mini" / moved)
    assert "not the published tree" in run("inat21-mini", "--data", tmp_path / "data", "--out", tmp_path / "out").output


def inat18(tmp_path, groups):
    root = tmp_path / "inat18"
    root.mkdir()
    for split in ("train", "val"):
        names = [f"train_val2018/{group}/{number}/{split}.jpg" for number, group in enumerate(groups)]
        data = {
            "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
            "annotations": [{"image_id": number, "category_id": number} for number in range(len(names))],
        }
        (root / f"{split}2018.json").write_text(json.dumps(data))
    return root


def test_inat18_is_checked_against_its_super_categories(tmp_path):
    coarse = path_table(published_taxonomy("inat18"))[:, 2]
    root = inat18(tmp_path, [f"Group{number}" for number in coarse])
    plan = prepare.inat18(root)
    assert len(plan["train"]) == len(coarse) and plan["val"]["0005"][0].name == "val.jpg"
    (tmp_path / "swapped").mkdir()
    wrong = inat18(tmp_path / "swapped", [f"Group{number}" for number in np.roll(coarse, 1)])
    done = run("inat18", "--data", wrong, "--out", tmp_path / "out")
    assert done.exit_code == 1 and "super-categories" in done.output
    (root / "val2018.json").write_text("[]")
    assert "JSON with images and annotations" in run("inat18", "--data", root, "--out", tmp_path / "out").output
