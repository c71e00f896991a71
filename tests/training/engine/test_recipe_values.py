"""Recipes and --set as people and strangers write them: refused by name before anything runs."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from cast_sdk.errors import RecipeError
from cast_sdk.training.engine.recipe.building import recipe_from_dict
from cast_sdk.training.engine.recipe.files import list_recipes, load_recipe
from cast_sdk.training.engine.recipe.knobs import knobs
from cast_sdk.training.engine.recipe.settings import Phase, Recipe
from cast_sdk.training.engine.recipe.values import RANGES, check_numbers


def test_every_number_of_a_recipe_has_a_range():
    numbers = set()
    hints = {
        f"{section}.{name}": hint
        for section, kind in typing.get_type_hints(Recipe).items()
        if dataclasses.is_dataclass(kind)
        for name, hint in typing.get_type_hints(kind).items()
    }
    hints |= {f"phases.{name}": hint for name, hint in typing.get_type_hints(Phase).items()}
    for name, hint in hints.items():
        if {int, float} & {hint, *typing.get_args(hint)}:
            numbers.add(name)
    assert numbers == set(RANGES)


def test_published_recipes_and_defaults_are_in_range():
    for name in list_recipes():
        load_recipe(name)
    defaults = knobs(Recipe())
    defaults.pop("phases")
    check_numbers(defaults)


@pytest.mark.parametrize("name", sorted(RANGES))
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_number_out_of_range_is_named(name, value):
    low, high = RANGES[name]
    if low <= value <= high and value not in (float("inf"), -float("inf")):
        check_numbers({name: (value, value)})
        return
    with pytest.raises(RecipeError, match=rf"{name} is .*(?s:.)*Remedy: give"):
        check_numbers({name: value})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schedule.minutes=-1", "schedule.minutes is -1.0"),
        ("schedule.minutes=0", "schedule.minutes is 0.0"),
        ("schedule.minutes=.nan", "schedule.minutes is nan"),
        ("schedule.epochs=0", "schedule.epochs is 0"),
        ("schedule.epochs=2.5", "schedule.epochs is 2.5, which is not int"),
        ("schedule.steps=-3", "schedule.steps is -3"),
        ("train.batch=-8", "train.batch is -8"),
        ("train.batch=many", "train.batch is 'many', which is not int"),
        ("train.batch=true", "train.batch is True, which is not int"),
        ("train.batch=", "train.batch is None, which is not int"),
        ("train.accumulation=0", "train.accumulation is 0"),
        ("train.seed=-1", "train.seed is -1"),
        ("augment.scale=[1, 0.1]", "augment.scale goes from 1.0 to 0.1"),
        ("augment.scale=[0.1]", "augment.scale is .*, which is not tuple"),
        ("augment.eval_std=[0, 0, 0]", "augment.eval_std is 0.0"),
        ("optimizer.betas=[0.9, 1]", "optimizer.betas is 1.0"),
        ("optimizer.name=[adamw]", "optimizer.name is .*, which is not one of"),
        ("train={a: 1}", "There is no setting train.a"),
        ("train=3", "train is 3 in place of keys"),
        ("train.batch={", "not YAML"),
        ("train.batch=!!python/object/apply:os.system [x]", "not YAML"),
        ("train.batch=2001-13-45", "not YAML|not int"),
        ("model.options=[1]", "model.options is .*, which is not dict"),
        ("phases=[{start: 2}]", "phases.start is 2.0"),
        ("phases=[{clusters: [0]}]", "phases.clusters is 0"),
        ("=3", "There is no setting ''"),
        ("..=3", "There is no setting|is a value"),
        ("train", "gives no value"),
    ],
)
def test_set_is_refused_by_name(text, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe("tiny_supervised", [text])


BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1", "not YAML.*(?s:.)*line"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b"\0", "not YAML"),
        (b"- 1\n- 2\n", "in place of keys"),
        (b"text", "in place of keys"),
        (b"!!python/name:os.system\n", "not YAML"),
        (b"&a [*a]", "more than|in place of keys"),
        (BOMB.encode(), "more than 100000 values"),
        (b"[" * 5000, "not YAML"),
        (b"? [1, 2]\n: 3\n", "not YAML|There is no setting"),
        (b"program: 3\n", "program is 3, which is not one of"),
        (b"name: 3\n", "name is 3, which is not str"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, content, words):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=words):
        load_recipe(str(path))


@pytest.mark.parametrize("name", ["", "missing.yaml", ".", "a\0b.yaml", "x" * 300 + ".yaml"])
def test_a_recipe_that_is_not_there(name):
    with pytest.raises(RecipeError, match=r"There is no recipe|cannot be read"):
        load_recipe(name)


def test_plain_data_is_checked_too():
    with pytest.raises(RecipeError, match="in place of keys"):
        recipe_from_dict(5)  # type: ignore[arg-type]
