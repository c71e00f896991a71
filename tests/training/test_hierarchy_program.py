"""Segments from models and baselines, and the program that measures them on BSDS500 and on folders of label maps."""

import itertools
import json
import os
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cast_sdk.errors import InputError, RecipeError
from cast_sdk.models import create_model, save_native
from cast_sdk.spec import SuperpixelSettings
from cast_sdk.training import hierarchy
from cast_sdk.training.data.dense.bsds import bsds500, label_folder, read_annotations
from cast_sdk.training.metrics.levels import (
    Grouping,
    kmeans_hierarchy,
    merge_by_colour,
    merge_levels,
    open_levels,
    seeds_levels,
    spherical_kmeans,
)


@pytest.fixture
def bsds(data_dir, tmp_path):
    """Two images of BSDS500 in its layout."""
    home = tmp_path / "BSDS500" / "data"
    for kind, suffix in (("images", "jpg"), ("groundTruth", "mat")):
        (home / kind / "val").mkdir(parents=True)
        for file in sorted((data_dir / "bsds500" / kind / "val").glob(f"*.{suffix}"))[:2]:
            shutil.copy(file, home / kind / "val")
    return home.parent


def run(*arguments):
    return CliRunner().invoke(hierarchy.main, [str(argument) for argument in arguments])


def nested(levels):
    return all(
        len(np.unique(np.stack([fine.ravel(), coarse.ravel()]), axis=1).T) == len(np.unique(fine))
        for fine, coarse in itertools.pairwise(levels)
    )


def test_merging_by_colour():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 4:] = 200
    image[2:, 4:] = 210
    image[0, :4] = 30
    superpixels = np.repeat(np.repeat([[0, 1], [2, 3]], 2, 0), 4, 1).astype(np.int32)
    three, two, one = merge_by_colour(image, superpixels, [3, 2, 1])
    assert three[1] == three[3] and len(set(three.tolist())) == 3  # the two bright ones are nearest
    assert two[0] == two[2] and two[1] == two[3] and two[0] != two[1]
    assert len(set(one.tolist())) == 1
    np.testing.assert_array_equal(merge_by_colour(image, superpixels, [9])[0], range(4))


def test_baselines_on_a_photograph(photos):
    image = np.array(Image.open(photos[3]).convert("RGB"))
    grouping = Grouping(96, SuperpixelSettings(64, 5, 15), (32, 16, 8, 4))
    levels = merge_levels(grouping)(image)
    assert [len(np.unique(level)) for level in levels] == [32, 16, 8, 4] and nested(levels)
    assert all(level.shape == image.shape[:2] for level in levels)
    assert [len(np.unique(level)) for level in seeds_levels(grouping)(image)] == [16, 16, 9, 9]


def test_spherical_kmeans():
    torch.manual_seed(1)
    angles = torch.tensor([0.0, 1.5, 3.0]).repeat_interleave(20) + 0.05 * torch.randn(60)
    points = torch.stack([angles.cos(), angles.sin()], 1) * (1 + torch.rand(60, 1))  # length does not matter
    labels, prototypes = spherical_kmeans(points, 3, torch.Generator().manual_seed(3))
    assert all(len(labels[i : i + 20].unique()) == 1 for i in (0, 20, 40)) and len(labels.unique()) == 3
    torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(3))
    fine, coarse = kmeans_hierarchy(points, (3, 2), torch.Generator().manual_seed(3))
    assert nested([fine.numpy()[:, None], coarse.numpy()[:, None]]) and len(coarse.unique()) <= 2


@pytest.mark.parametrize("name", ["cast_tiny", "vit_conv_small"])
def test_levels_of_a_checkpoint(name, photos, tmp_path):
    options = {} if name == "cast_tiny" else {"embed_dim": 48, "depths": [1], "num_heads": 4, "image_size": 96}
    torch.manual_seed(0)
    save_native(create_model(name, **options).eval(), tmp_path / "model.safetensors")
    image = np.array(Image.open(photos[3]).convert("RGB"))
    levels, _ = open_levels(tmp_path / "model.safetensors", Grouping(96, SuperpixelSettings(), (12, 6, 3, 2)))
    maps = levels(image)
    assert len(maps) == 4 and all(level.shape == image.shape[:2] for level in maps) and nested(maps)
    assert len(np.unique(maps[0])) <= (32 if name == "cast_tiny" else 12)
    np.testing.assert_array_equal(levels(image)[3], maps[3])  # random starts are the same every time


def test_program_on_bsds(bsds, tmp_path, monkeypatch):
    from cast_sdk.training.metrics.partition import partition_scores as original

    methods = ["random:cast_tiny", "superpixels", "merge:{size: 64, superpixels: 49}"]
    methods += ["random:vit_conv_small:{embed_dim: 48, depths: [1], num_heads: 4, image_size: 96}"]
    options = [part for method in methods for part in ("--method", method)]
    result = run("--data", bsds, "--split", "val", *options, "--out", tmp_path / "out", "--pictures", 1)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "hierarchy.json").read_text())
    assert record["images"] == 2 and list(record["methods"]) == [
        "random cast_tiny", "superpixels", "merge 64 px", "random vit_conv_small",
    ]  # fmt: skip
    for scores in record["methods"].values():
        assert len(scores["levels"]) == 4
        values = [level["covering"] for level in scores["levels"]]
        assert scores["best_per_dataset"]["covering"] == max(values) <= scores["best_per_image"]["covering"]
        assert scores["best_per_dataset"]["information"] >= scores["best_per_image"]["information"] > 0
    assert "| merge 64 px | 1 | 32.0 |" in result.output
    assert len(list((tmp_path / "out" / "pictures").glob("*.jpg"))) == 1

    measured = []
    monkeypatch.setattr(
        "cast_sdk.training.metrics.partition.partition_scores", lambda *a: measured.append(1) or original(*a)
    )
    options = [*options, "--method", "merge"]
    result = run("--data", bsds, "--split", "val", *options, "--out", tmp_path / "out", "--pictures", 0)
    assert result.exit_code == 0 and len(measured) == 2 * 4  # the new method alone
    again = json.loads((tmp_path / "out" / "hierarchy.json").read_text())
    assert {name: again["methods"][name] for name in record["methods"]} == record["methods"]


def test_levels_of_one_model_as_assigned_and_merged(bsds, tmp_path):
    methods = ("random:cast_tiny", "merged:random:cast_tiny", "assigned:random:cast_tiny")
    options = [part for method in methods for part in ("--method", method)]
    result = run("--data", bsds, "--split", "val", *options, "--out", tmp_path / "out", "--pictures", 0, "--limit", 1)
    assert result.exit_code == 0, result.output
    methods = json.loads((tmp_path / "out" / "hierarchy.json").read_text())["methods"]
    as_it_says, merged, assigned = (methods[f"random cast_tiny{end}"] for end in ("", ", merged", ", assigned"))
    assert assigned["levels"] == as_it_says["levels"] != merged["levels"]
    assert "own levels, merged" in merged["note"] and "own levels, assigned" in as_it_says["note"]


def test_program_on_label_maps(bsds, tmp_path):
    """PNG label maps of two annotators; the annotators' own maps as the method would be perfect."""
    entry = bsds500(bsds)[0]
    images, labels = tmp_path / "photos", tmp_path / "maps"
    images.mkdir()
    labels.mkdir()
    shutil.copy(entry.image, images / "one.jpg")
    for number, annotation in enumerate(entry.annotations()[:2]):
        Image.fromarray(annotation.labels.astype(np.uint8)).save(labels / f"one_{number}.png")
    (found,) = label_folder(images, labels)
    assert len(found.annotations()) == 2
    np.testing.assert_array_equal(found.annotations()[1].boundaries, entry.annotations()[1].boundaries)
    truth = hierarchy.Method("truth", lambda rgb: [found.annotations()[0].labels], "the first annotator")
    scores = hierarchy.evaluate([found], [truth])["truth"]
    assert scores.levels[0].precision == 1.0 and 0.5 < scores.levels[0].covering < 1
    result = run("--images", images, "--labels", labels, "--method", "superpixels", "--out", tmp_path / "out")
    assert result.exit_code == 0 and "photos with maps, 1 images" in result.output


def test_what_is_wrong_is_said(bsds, tmp_path):
    assert "images/train" in run("--data", bsds, "--split", "train", "--method", "merge", "--out", tmp_path).stderr
    assert "no file" in run("--data", bsds, "--method", "no.pth", "--out", tmp_path / "o").stderr
    assert "--data BSDS500" in run("--method", "merge", "--out", tmp_path / "o").stderr
    file = next((bsds / "data" / "groundTruth" / "val").iterdir())
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=file.name):
        read_annotations(file)
    file.unlink()
    with pytest.raises(RecipeError, match=file.stem):
        bsds500(bsds)


@pytest.fixture
def drawn(tmp_path):
    """One photograph with one label map, quick to measure."""
    rng = np.random.default_rng(0)
    for name, values in (("im", rng.integers(0, 256, (40, 60, 3), np.uint8)), ("lab", np.zeros((40, 60), np.uint8))):
        (tmp_path / name).mkdir()
        values[:, 30:] //= 2
        values[:, 30:] += 1
        Image.fromarray(values).save(tmp_path / name / "a.png")
    return tmp_path


def quick(home, *more, method="superpixels", out="out"):
    sizes = ("--size", 64, "--superpixels", 16, "--segments", "16,9", "--pictures", 0)
    where = ("--images", home / "im", "--labels", home / "lab", "--out", home / out)
    return run(*where, "--method", method, *sizes, *more)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        *((f"superpixels:{{size: {value}}}", ()) for value in ("x", "-5", "0", "100000000", "null", ".nan", "true")),
        *((f"merge:{{superpixels: {value}}}", ()) for value in ("x", "1.5", "[1]", "1000000000000")),
        *((f"random:cast_tiny:{text}", ()) for text in ("{", "{1: 1}", "{embed_dim: x}", "[1")),
        ("merge:!!python/object/apply:os.system [id]", ()),
        *(("superpixels", ("--segments", text)) for text in ("", "x", "8,4,", "nan", "-1,2", "4,8", "9" * 30)),
        ("superpixels", ("--tolerance", "nan")),
    ],
)
def test_numbers_of_methods_are_checked(drawn, method, more):
    result = quick(drawn, *more, method=method)
    assert result.exit_code in (1, 2) and not isinstance(result.exception, (ValueError, TypeError)), result.output
    assert "rror: " in result.output and not (drawn / "out").exists()


def test_results_of_other_images_are_not_kept(drawn):
    """Of one name and number: two folders of equal names, or an image that was replaced."""
    assert quick(drawn).exit_code == 0
    before = json.loads((drawn / "out" / "hierarchy.json").read_text())
    values = np.zeros((40, 60), np.uint8)
    values[20:] = 1
    Image.fromarray(values).save(drawn / "lab" / "a.png")
    assert quick(drawn).exit_code == 0
    after = json.loads((drawn / "out" / "hierarchy.json").read_text())
    assert before["fingerprint"] != after["fingerprint"]
    assert before["methods"]["superpixels"]["levels"] != after["methods"]["superpixels"]["levels"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_an_interrupted_run_is_repeated(drawn, monkeypatch, error):
    """After its pictures, and before its results."""

    def stopped(*arguments):
        raise error("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("cast_sdk.training.metrics.partition.summarise_hierarchy", stopped)
        assert quick(drawn, "--pictures", 1).exit_code != 0
    assert (drawn / "out" / "pictures" / "a.jpg").is_file()
    again = quick(drawn, "--pictures", 1)
    assert again.exit_code == 0 and (drawn / "out" / "hierarchy.md").is_file(), again.output


def test_results_of_a_copy_of_the_images_are_kept(drawn):
    assert quick(drawn).exit_code == 0
    before = json.loads((drawn / "out" / "hierarchy.json").read_text())
    for file in (drawn / "im" / "a.png", drawn / "lab" / "a.png"):
        os.utime(file, ns=(1, 1))
    assert quick(drawn).exit_code == 0
    assert json.loads((drawn / "out" / "hierarchy.json").read_text()) == before


@pytest.mark.parametrize("name", ["hierarchy.json", "hierarchy.md", "pictures"])
@pytest.mark.parametrize("text", ["mine", "[]", "null", '{"methods": []}', "{"])
def test_files_of_others_are_not_replaced(drawn, name, text):
    (drawn / "out").mkdir()
    (drawn / "out" / name).write_text(text)
    result = quick(drawn)
    assert result.exit_code == 1 and "was not written by this program" in result.output
    assert [path.read_text() for path in (drawn / "out").iterdir()] == [text]


@pytest.mark.parametrize("spoiled", [3, {}, {"key": 0}, {"levels": 3}, {"best_level": {}}, {"levels": [{}]}])
def test_spoiled_results_are_named_or_made_again(drawn, spoiled):
    assert quick(drawn).exit_code == 0
    file = drawn / "out" / "hierarchy.json"
    record = json.loads(file.read_text())
    good = record["methods"]["superpixels"]
    record["methods"]["superpixels"] = {**good, **spoiled} if isinstance(spoiled, dict) and spoiled else spoiled
    file.write_text(json.dumps(record))
    result = quick(drawn)
    assert result.exit_code in (0, 1) and (result.exit_code == 0 or result.output.startswith("error: ")), result.output


def test_label_maps_are_whole_numbers(drawn):
    (drawn / "lab" / "a.png").unlink()
    for values in (np.full((40, 60), np.nan), np.ones((40, 60), complex), np.full((40, 60), "a"),
                   np.full((40, 60), 2**40), np.ones((0, 60), int), np.full((40, 60), None, object),
                   np.zeros((40, 60), [("a", int)]), np.ones((40, 60)), np.array(3)):  # fmt: skip
        np.save(drawn / "lab" / "a.npy", values)
        result = quick(drawn)
        assert result.exit_code == 1 and "a.npy" in result.output and result.output.startswith("error: ")
