"""A data set as one small file: what stays as it was, what becomes smaller, and that the size is kept."""

from __future__ import annotations

import io
import json
import lzma
import shutil
import tarfile

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cast_sdk.errors import InputError, RecipeError
from cast_sdk.training.data import region_file
from cast_sdk.training.data.dataset import decode
from cast_sdk.training.data.prepare import packing
from cast_sdk.training.data.prepare.bundled import write_images
from cast_sdk.training.data.region_views import RegionViews
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.data.teacher import soft_labels
from cast_sdk.training.engine.recipe.building import recipe_from_dict
from cast_sdk.training.prepare_data import main

CLASSES, EACH = 3, 40


def photograph(number: int, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: a smooth picture, different for every number."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))


def encoded(number: int, side: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photograph(number, side)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def side_of(number: int) -> int:
    return 160 if number % CLASSES == 2 else 64  # the last class has photographs, the others thumbnails


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set as `bundled`, `soft-labels` and `regions` write it, of generated images."""
    folder = tmp_path_factory.mktemp("set")
    (folder / "classes.txt").write_text("n01\tcat\nn02\tdog\nn03\tteapot\n")
    for split, count, first in (("train", EACH, 0), ("val", 4, 1000), ("tiny", 6, 2000)):
        numbers = [first * CLASSES + number * CLASSES + label for label in range(CLASSES) for number in range(count)]
        write_images(folder / f"{split}-00.tar", ((encoded(n, side_of(n)), n % CLASSES) for n in numbers))
    scores = np.random.default_rng(0).normal(0, 3, (CLASSES * EACH, CLASSES)).astype(np.float16)
    scores[:, 0] = np.arange(len(scores))  # tells the image; always the highest but for the first few
    np.save(folder / soft_labels.FILE, scores)
    images = np.stack([photograph(number, 48) for number in range(5)])
    maps = np.random.default_rng(1).integers(0, 4, (5, 4, 48, 48)).astype(np.uint8)
    region_file.write_regions(folder / region_file.FILE, images, maps)
    return folder


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def pixels(source, index):
    return decode(source.read(index), "image").permute(1, 2, 0).numpy()


def run(*arguments):
    return CliRunner().invoke(main, ["pack", *map(str, arguments)])


def unpacked(file, folder):
    packing.unpack(file, folder)
    return folder


def test_a_file_that_is_large_enough_holds_every_image(data, tmp_path):
    result = run("--data", data, "--out", tmp_path / "set.tar.xz", "--megabytes", 5, "--quality", 60, "--tests", 6)
    assert result.exit_code == 0 and "train 120 of 120" in result.output and "tiny 6 of 18" in result.output
    folder = unpacked(tmp_path / "set.tar.xz", tmp_path / "set")
    before, after = open_source(data, "train"), open_source(folder, "train")
    assert after.labels.tolist() == before.labels.tolist() and after.classes == before.classes
    for index in range(len(before)):
        small = pixels(after, index)
        assert small.shape == (48, 48, 3)
        original = Image.fromarray(pixels(before, index)).resize((48, 48), Image.Resampling.BOX)
        assert psnr(np.asarray(original), small) > 30
    thumbnails = open_source(data, "val"), open_source(folder, "val")
    assert thumbnails[1].labels.tolist() == thumbnails[0].labels.tolist()
    same = [thumbnails[0].read(i) == thumbnails[1].read(i) for i in range(12)]
    assert same == [True] * 8 + [False] * 4 and pixels(thumbnails[1], 11).shape == (128, 128, 3)
    assert np.bincount(open_source(folder, "tiny").labels).tolist() == [2, 2, 2]


def test_images_without_labels_are_left_out_and_named(data, tmp_path):
    more = shutil.copytree(data, tmp_path / "more")
    shutil.copy(more / "tiny-00.tar", more / "others-00.tar")
    result = run("--data", more, "--out", tmp_path / "set.tar.xz")
    assert result.exit_code == 0 and "left out, the images without labels: others-00.tar" in result.output
    assert not list(unpacked(tmp_path / "set.tar.xz", tmp_path / "set").glob("others-*"))
    assert "left out" not in run("--data", data, "--out", tmp_path / "plain.tar.xz").output


def test_where_it_would_be_too_large_images_of_each_class_are_left_out(data, tmp_path):
    whole, small = tmp_path / "whole.tar.xz", tmp_path / "small.tar.xz"
    packing.pack(data, whole, 10**7, packing.Packing())
    limit = round(0.8 * whole.stat().st_size)
    record = packing.pack(data, small, limit, packing.Packing())
    assert 0.9 * limit < small.stat().st_size <= limit
    folder = unpacked(small, tmp_path / "set")
    source, scores = open_source(folder, "train"), np.load(folder / soft_labels.FILE)
    counts = np.bincount(source.labels)
    assert len(source) == len(scores) == record["images"]["train"] < 120 and np.ptp(counts) <= 1 <= counts.min()
    originals = open_source(data, "train")
    for index, row in enumerate(scores):  # the row says of which image it is
        original = Image.fromarray(pixels(originals, round(float(row[0])))).resize((48, 48), Image.Resampling.BOX)
        assert psnr(np.asarray(original), pixels(source, index)) > 25


def test_a_limit_that_cannot_be_kept_is_refused_and_nothing_is_written(data, tmp_path):
    with pytest.raises(RecipeError, match=r"cannot be packed into 0\.0 MB"):
        packing.pack(data, tmp_path / "set.tar.xz", 4000, packing.Packing())
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_there_stay(data, tmp_path):
    (tmp_path / "set.tar.xz").write_text("mine")
    result = run("--data", data, "--out", tmp_path / "set.tar.xz")
    assert result.exit_code == 1 and "is there already" in result.output
    assert (tmp_path / "set.tar.xz").read_text() == "mine"


def test_regions_are_read_as_before(data, tmp_path):
    packing.pack(data, tmp_path / "set.tar.xz", 10**7, packing.Packing(region_quality=90))
    folder = unpacked(tmp_path / "set.tar.xz", tmp_path / "set")
    (images, maps), (small, same) = (region_file.read_regions(f / region_file.FILE) for f in (data, folder))
    np.testing.assert_array_equal(maps, same)
    assert images.shape == small.shape and psnr(images, small) > 30
    assert (folder / region_file.FILE).stat().st_size < images.nbytes + maps.nbytes
    recipe = recipe_from_dict(
        {"augment": {"image_size": 32}, "superpixels": {"count": 16, "bins": 5}, "levels": {"weight": 1}}
    )
    assert len(RegionViews(folder, recipe).batch(3)) == 3


def test_encoded_regions_that_are_damaged_are_named(tmp_path):
    maps = np.zeros((1, 4, 8, 8), np.uint8)
    region_file.write_encoded(tmp_path / "regions.npz", [b"no image at all"], maps)
    with pytest.raises(InputError, match=r"regions\.npz"):
        region_file.read_regions(tmp_path / "regions.npz")
    np.savez(tmp_path / "regions.npz", images=np.zeros(9, np.uint8), maps=maps)
    with pytest.raises(InputError, match="no images with regions"):
        region_file.read_regions(tmp_path / "regions.npz")


def test_the_strongest_classes_keep_their_scores_and_probability():
    scores = np.random.default_rng(2).normal(0, 4, (20, 30)).astype(np.float16)
    reduced = soft_labels.strongest(scores, 5, 2.0)
    order = np.argsort(-scores.astype(float), 1)
    assert reduced.dtype == np.float16 and all(len(np.unique(row)) <= 6 for row in reduced)
    for row, small, best in zip(scores, reduced, order[:, :5], strict=True):
        assert (row[best] == small[best]).all() and set(np.argsort(-small.astype(float))[:5]) == set(best)
        before, after = (np.exp(values.astype(float) / 2) for values in (row, small))
        assert after[best].sum() / after.sum() == pytest.approx(before[best].sum() / before.sum(), rel=0.01)
    assert soft_labels.strongest(scores, 30, 2.0) is scores


def test_a_share_of_each_class():
    labels = np.array([0] * 10 + [1] * 5 + [2])
    assert packing.evenly(labels, 0.4).tolist() == [0, 2, 5, 7, 10, 12, 15]
    assert packing.evenly(labels, 3.0).tolist() == list(range(16))
    assert packing.evenly(labels, 0.01).tolist() == [0, 10, 15]


def test_unpacking_appears_whole_once_and_only_there(data, tmp_path):
    file, folder = tmp_path / "set.tar.xz", tmp_path / "out" / "set"
    packing.pack(data, file, 10**7, packing.Packing())
    packing.unpack(file, folder)
    assert packing.record_of(folder)["of"]["train"] == 120 and packing.record_of(data) is None
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    packing.unpack(file, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times

    (tmp_path / "mine").mkdir()
    with pytest.raises(RecipeError, match="something else"):
        packing.unpack(file, tmp_path / "mine")
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(InputError, match="damaged"):
        packing.unpack(file, tmp_path / "out" / "torn")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["set"]


def test_one_damaged_bit_is_found_wherever_the_archive_ends(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):  # the checksum follows the last zeros, which not every size makes tarfile read
        size = 65536 + 512 * number
        (source / "images").write_bytes(np.random.default_rng(number).bytes(size))
        packing.archive(source, tmp_path / "set.tar.xz")
        damaged = bytearray((tmp_path / "set.tar.xz").read_bytes())
        damaged[size // 2] ^= 1
        (tmp_path / "set.tar.xz").write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            packing.unpack(tmp_path / "set.tar.xz", tmp_path / "out" / "set")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_follows_the_last_file_is_not_passed_over(tmp_path):
    (tmp_path / "source").mkdir()
    packing.archive(tmp_path / "source", tmp_path / "set.tar.xz")
    content = lzma.decompress((tmp_path / "set.tar.xz").read_bytes())
    (tmp_path / "set.tar.xz").write_bytes(lzma.compress(content + b"more"))
    with pytest.raises(InputError, match="damaged"):
        packing.unpack(tmp_path / "set.tar.xz", tmp_path / "set")


def test_what_a_killed_process_left_is_removed(data, tmp_path):
    (tmp_path / "out" / ".unpacking-killed" / "set").mkdir(parents=True)
    (tmp_path / "out" / ".unpacking-killed" / "set" / "train-00.tar").write_text("half")
    packing.pack(data, tmp_path / "set.tar.xz", 10**7, packing.Packing())
    packing.unpack(tmp_path / "set.tar.xz", tmp_path / "out" / "set")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["set"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_what_is_no_file_is_refused(kind, tmp_path):
    with tarfile.open(tmp_path / "set.tar.xz", "w:xz") as tar:
        entry = tarfile.TarInfo("set/images")
        entry.type, entry.linkname = kind, "elsewhere"
        tar.addfile(entry)
    with pytest.raises(InputError, match="which pack does not write"):
        packing.unpack(tmp_path / "set.tar.xz", tmp_path / "out" / "set")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../escaped", "set/../../escaped", "/escaped", "set/deep/file", "..", ".", "set/", "set/.."]
)
def test_names_that_lead_elsewhere_are_refused(name, tmp_path):
    with tarfile.open(tmp_path / "set.tar.xz", "w:xz") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"no"))
    with pytest.raises(InputError, match="which pack does not write"):
        packing.unpack(tmp_path / "set.tar.xz", tmp_path / "out" / "set")
    assert list((tmp_path / "out").iterdir()) == [] and not (tmp_path / "escaped").exists()


def test_equal_data_gives_equal_files(data, tmp_path):
    for name in ("one", "two"):
        packing.pack(data, tmp_path / name, 10**7, packing.Packing())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    packing.unpack(tmp_path / "one", tmp_path / "set")
    assert json.loads((tmp_path / "set" / packing.RECORD).read_text())["side"] == packing.Packing.side
