"""The supervised program with a taxonomy: it learns, resumes, starts from a flat model and exports."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from cast_sdk.errors import RecipeError
from cast_sdk.models import load_model, save_native
from cast_sdk.training.data.dataset import Images, LabelledViews
from cast_sdk.training.data.sources import open_source
from cast_sdk.training.data.transforms import denormalised_uint8
from cast_sdk.training.engine.models import create
from cast_sdk.training.engine.recipe.files import load_recipe
from cast_sdk.training.engine.runlog import read_log
from cast_sdk.training.supervised import main
from cast_sdk.training.tasks.taxonomy import TaxonomyLoss

TREE = "colour,warmth\nclass0,warm\nclass1,cold\nclass2,cold\nclass3,warm\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    path = tmp_path_factory.mktemp("tree") / "tree.csv"
    path.write_text(TREE)
    return path


def program(recipe, data, out, *extra):
    arguments = ["--recipe", recipe, "--data", data, "--out", out, "--device", "cpu", *extra]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(folders, micro, tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("taxonomy")
    mixing = ["--set", "augment.mixup=0.8", "--set", "augment.cutmix=1.0"]
    done = program(micro, folders, out, "--taxonomy", tree, "--set", "schedule.epochs=4", *mixing)
    assert done.exit_code == 0, done.output
    return out


def test_every_level_is_measured_and_the_checkpoint_knows_the_tree(run):
    validation = [entry for entry in read_log(run) if entry["kind"] == "validation"][-1]
    assert {"top1", "top1_colour", "top1_warmth", "fpa", "tice", "fpa_consistent", "ema_fpa"} <= set(validation)
    assert validation["top1"] == pytest.approx(validation["top1_colour"])
    assert validation["fpa"] <= 100 - validation["tice"] + 1e-6
    model = load_model(run / "best_checkpoint.pth")
    assert [(level.name, level.class_names) for level in model.spec.taxonomy] == [
        ("colour", ()),
        ("warmth", ("cold", "warm")),
    ]
    assert model.spec.class_names == ("class0", "class1", "class2", "class3")
    assert model.spec.taxonomy[1].members == (1, 0, 0, 1)
    raw = torch.load(run / "best_checkpoint.pth", weights_only=False)
    assert "family_head.weight" in raw["model"] and "family_head.weight" in raw["model_ema"]


def test_evaluation_and_artifacts_count_the_same(run, folders, tmp_path):
    from cast_sdk.export import export_onnx
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.metrics.accuracy import accuracy, artifact_accuracy, evaluation_views

    model = load_model(run / "best_checkpoint.pth")
    images = Images(open_source(folders, "val"))
    expected = accuracy(model, evaluation_views(model.spec, images), start("cpu"), 8)
    export_onnx(model, tmp_path / "m.onnx", verify=False)
    found = artifact_accuracy(str(tmp_path / "m.onnx"), images)
    for name, value in found.items():
        assert value == pytest.approx(expected[name]), name
    assert "fpa" in found


def test_a_flat_model_is_judged_along_a_tree(run, folders, micro, tree, tmp_path):
    from cast_sdk.training.evaluate import main as evaluate

    flat = create(load_recipe(str(micro), []), open_source(folders, "train").classes)
    save_native(flat, tmp_path / "flat.safetensors")
    arguments = ["--data", str(folders), "--device", "cpu", "--taxonomy", str(tree), "--json", "--model"]
    done = CliRunner().invoke(evaluate, [*arguments, str(tmp_path / "flat.safetensors")])
    assert done.exit_code == 0, done.output
    assert {"top1_colour", "top1_warmth", "fpa", "tice"} <= set(json.loads(done.stdout))
    refused = CliRunner().invoke(evaluate, [*arguments, str(run / "best_checkpoint.pth")])
    assert refused.exit_code == 1 and "taxonomy of its own" in refused.output


def test_the_loss_sees_every_level(folders, micro, tree):
    recipe = load_recipe(str(micro), [f"taxonomy.tree={tree}"])
    model = create(recipe, open_source(folders, "train").classes)
    criterion = TaxonomyLoss(model.spec.taxonomy, 0.1, 0.5)
    logits = [torch.zeros(2, 4, requires_grad=True), torch.zeros(2, 2, requires_grad=True)]
    hard = torch.tensor([0, 2])
    loss = criterion(logits, hard)
    assert loss.item() == pytest.approx(criterion(logits, F.one_hot(hard, 4).float()).item())
    loss.backward()
    assert all(level.grad.abs().max() > 0 for level in logits)
    warm = criterion([torch.zeros(2, 4), torch.tensor([[0.0, 5], [5.0, 0]])], hard)
    cold = criterion([torch.zeros(2, 4), torch.tensor([[5.0, 0], [0.0, 5]])], hard)
    assert warm < loss < cold


def test_a_flat_checkpoint_starts_it_with_fresh_heads(folders, micro, tree, tmp_path):
    classes = open_source(folders, "train").classes
    flat = create(load_recipe(str(micro), ["train.seed=9"]), [*classes, "more"])
    save_native(flat, tmp_path / "flat.safetensors")
    settings = [f"taxonomy.tree={tree}", f"model.init={tmp_path / 'flat.safetensors'}"]
    model = create(load_recipe(str(micro), settings), classes)
    assert torch.equal(model.blocks1[0].attn.qkv.weight, flat.blocks1[0].attn.qkv.weight)
    assert model.head.weight.shape[0] == 4 and model.family_head.weight.shape[0] == 2
    again = create(load_recipe(str(micro), settings), [*classes[:3], "class3"])
    save_native(again, tmp_path / "tree.safetensors")
    settings[1] = f"model.init={tmp_path / 'tree.safetensors'}"
    inherited = create(load_recipe(str(micro), settings), classes)
    assert torch.equal(inherited.family_head.weight, again.family_head.weight)
    with pytest.raises(RecipeError, match="does not fit the recipe's model"):
        create(load_recipe(str(micro), [*settings, "model.options.embed_dim=16"]), classes)


def test_statistics_of_inaturalist_are_those_of_evaluation_only(folders, micro):
    mean, std = (0.466, 0.471, 0.380), (0.195, 0.194, 0.192)
    settings = [f"augment.eval_mean={list(mean)}", f"augment.eval_std={list(std)}"]
    plain = load_recipe(str(micro), ["superpixels.source=denormalised"])
    recipe = load_recipe(str(micro), [*settings, "superpixels.source=denormalised"])
    images = Images(open_source(folders, "val"))
    ours, theirs = (LabelledViews(images, one, train=False)[(0, 0, 0)] for one in (recipe, plain))
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    original = theirs[0] * torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    original = original + torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    assert torch.allclose(ours[0], (original - shift) / scale, atol=1e-5)
    seen = denormalised_uint8(ours[0], mean, std).astype(int)  # by the superpixels: the picture, truncated
    assert np.abs(seen - 255 * original.permute(1, 2, 0).numpy()).max() < 1.1
    trained, usual = (LabelledViews(images, one, train=True)[(0, 0, 0)] for one in (recipe, plain))
    assert torch.equal(trained[0], usual[0])  # the network's input in training
    crop = LabelledViews(images, dataclasses.replace(recipe, superpixels=plain.superpixels.__class__(16, 5, 4)), False)
    assert torch.allclose(crop[(0, 0, 0)][0], ours[0], atol=1e-5)
    assert create(recipe, open_source(folders, "train").classes).spec.mean == mean
