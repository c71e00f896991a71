"""training/calibrate.py on a small model: what it writes, and that it stays out of the way of the weights."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from click.testing import CliRunner

from cast_sdk.errors import InputError
from cast_sdk.models import create_model, load_model, save_native
from cast_sdk.spec import SuperpixelSettings
from cast_sdk.training.calibrate import main, photograph_source
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.launch import load_images
from cast_sdk.training.metrics.accuracy import evaluation_views, predictions


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model(
        "cast_tiny",
        image_size=32,
        embed_dim=32,
        depths=(1, 1, 1, 1),
        num_heads=2,
        clusters=(8, 4, 3, 2),
        num_classes=4,
        superpixels=SuperpixelSettings(16, 5, 4),
    ).eval()
    with torch.no_grad():
        model.head.weight.mul_(30)  # far too certain
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_native(model, path, torch.float16)
    return path


@pytest.fixture
def photographs(folders, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(24):
        wnid = f"n{number % 4}" if number % 3 else "n99"  # every third is of a class that the model does not know
        picture = folders / "train" / f"class{number % 4}" / f"{number // 4:03d}.jpg"
        shutil.copy(picture, folder / f"{number:03d}_{wnid}.jpg")
    return folder


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_temperature_and_threshold_are_written(model_file, shards, photographs, tmp_path):
    out = tmp_path / "out.safetensors"
    results = run("--model", model_file, "--data", shards, "--photographs", photographs, "--out", out)
    assert results["ece_after"] < results["ece_before"] and results["temperature"] > 1.5
    assert results["chosen_on"] == results["kept_apart"] == 12 and results["known_photographs"] == 16
    before, after = load_model(model_file), load_model(out)
    weights = zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    assert (after.spec.temperature, after.spec.unsure_below) == (results["temperature"], results["unsure_below"])
    assert all(torch.equal(a, b) for a, b in weights)


def test_a_threshold_that_is_given_is_written_and_stated(model_file, shards, photographs, tmp_path):
    out = tmp_path / "out.safetensors"
    more = ("--photographs", photographs, "--unsure-below", "0.78", "--report", "val", "--out", out)
    results = run("--model", model_file, "--data", shards, *more)
    assert load_model(out).spec.unsure_below == results["written"] == 0.78
    for name in ("images_named", "val_named", "photographs_named"):
        assert [row["unsure_below"] for row in results[name]] == [0.5, 0.6, 0.7, 0.78, 0.8, 0.9]


def test_another_split_is_reported_at_the_fitted_temperature(model_file, shards, tmp_path):
    out = tmp_path / "out.safetensors"
    results = run("--model", model_file, "--data", shards, "--report", "val", "--report", "train", "--out", out)
    assert results["val_named"] == results["images_named"]
    assert results["train_named"] != results["val_named"] and len(results["train_named"]) == len(results["val_named"])


def test_without_photographs_there_is_no_threshold(model_file, shards, tmp_path):
    out = tmp_path / "out.safetensors"
    run("--model", model_file, "--data", shards, "--out", out)
    assert load_model(out).spec.unsure_below == 0


def test_predictions_are_those_of_single_images(model_file, shards):
    model = load_model(model_file)
    views = evaluation_views(model.spec, load_images(shards, "val", "error", False, World()), "stretch")
    logits, labels = predictions(model, views, batch=5)
    alone, label = predictions(model, views, batch=1)
    assert logits.shape == (16, 4) and labels.tolist() == label.tolist()
    assert torch.allclose(torch.tensor(logits), torch.tensor(alone), atol=1e-4)


def test_photographs_are_known_by_their_names(photographs, shards, tmp_path):
    source = photograph_source(photographs, shards / "classes.txt")
    assert source.labels[:4].tolist() == [-1, 1, 2, -1]
    with pytest.raises(InputError, match="WNID"):
        photograph_source(tmp_path / "photographs" / "..", tmp_path / "none.txt")
    (tmp_path / "other.txt").write_text("n55\tdog\n")
    with pytest.raises(InputError, match="no photograph of a class"):
        photograph_source(photographs, tmp_path / "other.txt")
