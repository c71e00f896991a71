"""Recipes: what is accepted, what is refused and with which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cast_sdk.errors import RecipeError
from cast_sdk.training.engine.recipe.building import recipe_from_dict
from cast_sdk.training.engine.recipe.files import list_recipes, load_recipe
from cast_sdk.training.engine.recipe.knobs import knobs
from cast_sdk.training.tasks.classification import Classification
from cast_sdk.training.tasks.pretraining import Pretraining
from cast_sdk.training.tasks.probe import LinearProbe
from cast_sdk.training.tasks.segmentation import Segmentation
from cast_sdk.training.tasks.voc_finetuning import Finetuning

TASKS = {task.program: task for task in (Classification, Pretraining, LinearProbe, Segmentation, Finetuning)}
PUBLISHED = json.loads((Path(__file__).parent / "published_recipes.json").read_text())


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_valid_and_builds_its_model_spec(name):
    from cast_sdk.models import model_spec

    recipe = load_recipe(name)
    assert recipe.notes
    model_spec(recipe.model.name, **recipe.model.options)
    assert recipe_from_dict(recipe.to_dict()) == recipe


def test_override_takes_yaml_values():
    recipe = load_recipe("tiny_supervised", ["optimizer.lr=1e-4", "augment.scale=[0.2, 1]", "train.ema=null"])
    assert recipe.optimizer.lr == 1e-4
    assert recipe.augment.scale == (0.2, 1.0)
    assert recipe.train.ema is None


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.bach=8"], "did you mean 'batch'"),
        (["trian.batch=8"], "did you mean 'train'"),
        (["train.batch=many"], "train.batch is 'many', which is not int"),
        (["train.sync_bn=1"], "train.sync_bn is 1, which is not bool"),
        (["train.precision=int8"], "'fp32', 'bf16', 'fp16'"),
        (["train=8"], "train is 8 in place of keys"),
        (["train.batch"], "--set train.batch gives no value"),
    ],
)
def test_a_wrong_override_names_the_remedy(overrides, words):
    with pytest.raises(RecipeError, match="(?s)" + words):
        load_recipe("tiny_supervised", overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["teacher.weight=1.5"], r"teacher\.weight is 1\.5"),
        (["teacher.temperature=0"], "positive"),
        (["levels.weight=-1"], r"levels\.weight is -1"),
        (["levels.batch=0"], "a number from 1"),
        (["teacher.weight=0.5", "augment.mixup=0.8"], "Mixed images have no soft labels"),
    ],
)
def test_soft_losses_are_checked(overrides, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe("tiny_supervised", overrides)


@pytest.mark.parametrize("name", [name for name in list_recipes() if not name.startswith("tiny")])
def test_published_recipes_have_no_soft_losses(name):
    recipe = load_recipe(name)
    assert recipe.teacher.weight == 0 and recipe.levels.weight == 0


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="tiny_supervised"):
        load_recipe("tiny_supervise")


def test_a_program_refuses_recipes_of_another():
    with pytest.raises(RecipeError, match=r"python training/supervised\.py --recipe tiny_supervised"):
        load_recipe("tiny_supervised", program="pretrain")


@pytest.mark.parametrize("name", PUBLISHED["recipes"])
def test_recipes_with_published_numbers_mean_what_they_meant(name):
    """Every setting of then, given or by default; settings that came later do not count."""
    now = json.loads(json.dumps(knobs(load_recipe(name))))
    then = {**PUBLISHED["defaults"], **PUBLISHED["recipes"][name]}
    assert {knob: now.get(knob) for knob in then} == then


@pytest.mark.parametrize("name", list_recipes())
def test_no_recipe_sets_what_its_program_ignores(name):
    recipe = load_recipe(name)
    TASKS[recipe.program].check(recipe)


@pytest.mark.parametrize(
    ("name", "override", "words"),
    [
        ("tiny_moco", "train.ema=0.99", "pretrain does not use train.ema"),
        ("tiny_moco", "phases=[{start: 0.5, superpixels: 36}]", "pretrain does not use phases"),
        ("tiny_moco", "augment.mixup=0.8", "pretrain does not use augment.mixup"),
        ("tiny_moco", "optimizer.momentum=0.5", "pretrain does not use optimizer.momentum"),  # of sgd
        ("tiny_moco", "schedule.power=2", "pretrain does not use schedule.power"),  # of poly
        ("tiny_supervised", "train.drop_last=false", "supervised does not use train.drop_last"),
        ("tiny_supervised", "probe.passes=2", "supervised does not use probe.passes"),
        ("tiny_bundled", "teacher.others_own=1", "supervised does not use teacher.others_own"),
        ("tiny_lincls", "model.init=x.pth", "linear_probe does not use model.init"),
        ("tiny_lincls", "phases=[{start: 0.5, clusters: [9, 6, 4, 2]}]", "linear_probe does not use phases"),
        ("camvid_cast_tiny", "phases=[{start: 0.5, superpixels: 36}]", "segment does not use phases"),
        ("camvid_cast_tiny", "train.ema=0.99", "segment does not use train.ema"),
        ("camvid_cast_tiny", "schedule.warmup=2", "segment does not use schedule.warmup"),
        ("voc_finetune_cast_small", "phases=[{start: 0.5, superpixels: 36}]", "voc does not use phases"),
        ("voc_finetune_cast_small", "optimizer.name=adamw", "optimizer.name is 'adamw', and voc knows only 'sgd'"),
        ("voc_finetune_cast_small", "dense.photometric=true", "dense.photometric is True, and voc knows only False"),
        ("voc_finetune_cast_small", "model.dropout=0", "voc does not use model.dropout"),
        ("voc_finetune_cast_small", "schedule.minutes=5", "voc does not use schedule.steps"),  # minutes end it
    ],
)
def test_a_knob_without_effect_is_refused_by_name(name, override, words):
    recipe = load_recipe(name, [override])
    with pytest.raises(RecipeError, match=words):
        TASKS[recipe.program].check(recipe)


def test_a_knob_that_other_knobs_idle_is_refused():
    # By the clock, without a warm-up in epochs: nothing depends on them.
    idle = load_recipe("tiny_supervised", ["schedule.warmup=0"])
    with pytest.raises(RecipeError, match=r"does not use schedule\.epochs"):
        Classification.check(idle)
