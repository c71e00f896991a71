"""The bundled model's data set from small folders in the official layouts."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cast_sdk.errors import RecipeError
from cast_sdk.training.data.prepare import bundled
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.prepare_data import main


def save(path, side, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


@pytest.fixture
def layouts(tmp_path):
    tiny, nette = tmp_path / "tiny", tmp_path / "imagenette"
    for wnid in ("n01", "n03", "n09"):
        for number in range(12):
            save(tiny / "train" / wnid / "images" / f"{wnid}_{number:02d}.JPEG", 64, number)
    for number, wnid in enumerate(("n01", "n03", "n09")):
        save(tiny / "val/images" / f"val_{number}.JPEG", 64)
        with (tiny / "val/val_annotations.txt").open("a") as file:
            file.write(f"val_{number}.JPEG\t{wnid}\t0\t0\t1\t1\n")
    (tiny / "words.txt").write_text("n01\tcat, house cat\nn02\tdog\nn03\tteapot\nn09\tgroom\n")
    for split, count in (("train", 13), ("val", 2)):
        for number in range(count):
            save(nette / split / "n02" / f"{number:02d}.JPEG", 224, number)
    return tiny, nette


def test_the_data_set_of_two(layouts, tmp_path):
    tiny, nette = layouts
    out = tmp_path / "out"
    arguments = ["bundled", "--tiny", tiny, "--imagenette", nette, "--out", out, "--leave-out", "n09"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert (out / "classes.txt").read_text() == "n01\tcat, house cat\nn02\tdog\nn03\tteapot\n"
    counts = {split: np.bincount(open_source(out, split).labels, minlength=3).tolist() for split in
              ("train", "val", "tiny", "imagenette")}  # fmt: skip
    assert counts == {"train": [2, 3, 2], "val": [10, 10, 10], "tiny": [1, 0, 1], "imagenette": [0, 2, 0]}
    source = open_source(out, "train")
    assert source.classes == ["cat", "dog", "teapot"]
    sides = [Image.open(io.BytesIO(source.read(index))).size for index in range(len(source))]
    assert sides == [(64, 64)] * 2 + [(160, 160)] * 3 + [(64, 64)] * 2
    with tarfile.open(out / "train-00.tar") as tar:  # thumbnails are copied byte for byte
        copied = tar.extractfile(tar.getmembers()[0]).read()
    assert copied == (tiny / "train/n01/images/n01_10.JPEG").read_bytes()


def test_shards_of_other_classes_do_not_stay_beside_new_ones(layouts, tmp_path):
    tiny, nette = layouts
    out = tmp_path / "out"
    out.mkdir()
    (out / "train-photographs.tar").write_bytes(b"")
    arguments = ["bundled", "--tiny", tiny, "--imagenette", nette, "--out", out]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code != 0 and "holds train-photographs.tar" in result.output
    assert [path.name for path in out.iterdir()] == ["train-photographs.tar"]


def test_other_layouts_are_refused(layouts, tmp_path):
    tiny, nette = layouts
    with pytest.raises(RecipeError, match="n77"):
        bundled.collect(tiny, nette, ["n77"])
    with pytest.raises(RecipeError, match="is without train"):
        bundled.collect(tmp_path, nette)


def test_the_teachers_classes_are_found_by_name(tmp_path):
    (tmp_path / "classes.txt").write_text("n02\tdog\nn05\tcar\n")
    assert bundled.imagenet_columns(tmp_path / "classes.txt", ["n05", "n04", "n02"]) == [2, 0]
    with pytest.raises(RecipeError, match="n05"):
        bundled.imagenet_columns(tmp_path / "classes.txt", ["n02"])
