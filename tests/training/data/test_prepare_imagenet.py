"""ImageNet folders: checks that name what is missing, the subset, sorted validation images."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from cast_sdk.training.data.prepare import imagenet as prepare_imagenet
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.prepare_data import main

WNIDS = prepare_imagenet.IMAGENET_100


def fill(root, wnids, images=2):
    for split in ("train", "val"):
        for wnid in wnids:
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for number in range(images):
                (folder / f"{wnid}_{number}.JPEG").write_bytes(b"x")
    return root


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("copy", [False, True])
def test_subset_is_made_and_made_again(tmp_path, copy):
    data = fill(tmp_path / "Img", [*WNIDS, "n99999999"])
    out = tmp_path / "Img-100"
    extra = ["--copy"] if copy else []
    result = run("imagenet100", "--data", data, "--out", out, *extra)
    assert result.exit_code == 0 and "200 images, 100 classes" in result.output
    assert (out / "train" / WNIDS[0]).is_symlink() != copy
    source = open_source(out, "val")
    assert source.classes == sorted(WNIDS) and len(source) == 200
    if copy:  # an interrupted copy
        (out / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG").write_bytes(b"")
    assert run("imagenet100", "--data", data, "--out", out, *extra).exit_code == 0
    assert (out / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG").read_bytes() == b"x"


def test_missing_classes_are_named_before_anything_is_written(tmp_path):
    data = fill(tmp_path / "Img", WNIDS[:98])
    result = run("imagenet100", "--data", data, "--out", tmp_path / "out")
    assert result.exit_code == 1 and f"are missing in {data}." in result.output
    assert "4 class folders" in result.output and f"train/{WNIDS[98]}, train/{WNIDS[99]}" in result.output
    assert not (tmp_path / "out").exists()


def test_a_list_of_ones_own(tmp_path):
    data = fill(tmp_path / "Img", ["n00000001", "n00000002"])
    (tmp_path / "list.txt").write_text("n00000002 a thing\n")
    result = run("imagenet100", "--data", data, "--out", tmp_path / "out", "--classes", tmp_path / "list.txt")
    assert "2 images, 1 classes" in result.output
    (tmp_path / "list.txt").write_text("n00000002\nn00000002\n")
    twice = run("imagenet100", "--data", data, "--out", tmp_path / "out", "--classes", tmp_path / "list.txt")
    assert twice.exit_code == 1 and "names a class twice: 2 lines, 1 wnids" in twice.output


def test_full_data_set(tmp_path):
    from timm.data import ImageNetInfo

    wnids = ImageNetInfo().label_names()
    assert set(WNIDS) <= set(wnids) and len(set(WNIDS)) == 100
    data = fill(tmp_path / "Img", wnids, images=1)
    result = run("imagenet", "--data", data)
    assert "train: 1,000 images, 1,000 classes (the full data set has 1,281,167)" in result.output
    (data / "train" / wnids[3] / f"{wnids[3]}_0.JPEG").unlink()
    (data / "train" / "extra").mkdir()
    broken = run("imagenet", "--data", data)
    assert broken.exit_code == 1 and f"1 empty: {wnids[3]}; 1 unknown: extra" in broken.output


def test_flat_validation_images_are_sorted(tmp_path):
    data = fill(tmp_path / "Img", WNIDS[:2])
    flat = tmp_path / "Img" / "val"
    for number in range(2):
        (flat / f"ILSVRC2012_val_0000000{number}.JPEG").write_bytes(b"y")
    labels = tmp_path / "LOC_val_solution.csv"
    labels.write_text("ImageId,PredictionString\n" + f"ILSVRC2012_val_00000000,{WNIDS[0]} 1 2 3 4\n")
    refused = run("imagenet", "--data", data, "--val-labels", labels)
    assert refused.exit_code == 1 and "have no label, first ILSVRC2012_val_00000001.JPEG" in refused.output
    assert (flat / "ILSVRC2012_val_00000000.JPEG").exists()
    labels.write_text(labels.read_text() + f"ILSVRC2012_val_00000001,{WNIDS[1]} 1 2 3 4\n")
    assert "sorted 2 validation images" in run("imagenet", "--data", data, "--val-labels", labels).output
    assert (flat / WNIDS[1] / "ILSVRC2012_val_00000001.JPEG").exists()
    wrong = run("imagenet", "--data", data, "--val-labels", __file__)
    assert wrong.exit_code == 1 and "is not LOC_val_solution.csv" in wrong.output


def test_a_missing_split_says_where_it_comes_from(tmp_path):
    result = run("imagenet", "--data", tmp_path)
    assert result.exit_code == 1 and "ILSVRC2012_img_train.tar" in result.output
