"""Recipes: what is accepted, what is refused and with which words."""

from __future__ import annotations

import pytest

from cast_sdk.errors import RecipeError
from cast_sdk.training.engine.recipe import list_recipes, load_recipe, recipe_from_dict


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
        (["train.batch=many"], "train.batch must be int"),
        (["train.sync_bn=1"], "train.sync_bn must be bool"),
        (["train.precision=int8"], "'fp32', 'bf16', 'fp16'"),
        (["train=8"], "train holds keys and values"),
        (["train.batch"], "--set takes key=value"),
    ],
)
def test_a_wrong_override_names_the_remedy(overrides, words):
    with pytest.raises(RecipeError, match="(?s)" + words):
        load_recipe("tiny_supervised", overrides)


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="tiny_supervised"):
        load_recipe("tiny_supervise")


def test_a_program_refuses_recipes_of_another():
    with pytest.raises(RecipeError, match=r"python training/supervised\.py --recipe tiny_supervised"):
        load_recipe("tiny_supervised", program="pretrain")
