"""Defaults found from the data: a recipe, and the words that say why.

Every value can be set: by an option of the command, or by `--set KEY=VALUE`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.spec import ModelSpec
from cast_sdk.superpixels import seeds_count
from cast_sdk.training.engine.recipe.building import recipe_from_dict
from cast_sdk.training.engine.recipe.files import epochs_obey, override
from cast_sdk.training.engine.recipe.settings import Recipe

VIEWS = 5000  # images that a run sees at least, counted with every epoch
EPOCHS = (5, 40)
MIXUP = 0.4  # of a beta distribution: worth 2 points where 30 images of a class are all there is (docs/tutorials)
UNEQUAL = 1.5  # from this ratio of the largest to the smallest class on, classes are balanced
_ARCHITECTURE = ("embed_dim", "depths", "num_heads", "clusters", "patch_size", "drop_path")


@dataclass(frozen=True)
class Choices:
    """What a person chose; None: found from the data."""

    epochs: int | None = None
    image_size: int | None = None
    batch: int | None = None
    lr: float | None = None
    balance: str = "auto"  # auto, yes or no
    taxonomy: str = ""
    seed: int = 0
    precision: str = "fp32"
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A recipe and, in a line each, what it does and why."""

    recipe: Recipe
    lines: tuple[str, ...]


def model_section(spec: ModelSpec, init: str) -> dict[str, Any]:
    """The `model` section of a recipe that starts from a checkpoint with this spec.

    Raises:
        InputError: for a model that is no CAST classifier.
    """
    from cast_sdk.models import list_models, model_spec

    if spec.family not in ("cast", "cast_deit"):
        raise InputError(
            f"{init} is a model of the family {spec.family}, and classes are trained on CAST (cast, cast_deit).",
            remedy="give another --model, or leave it out for the bundled one",
        )
    default = "cast_small" if spec.family == "cast" else "cast_deit_small"
    known = spec.name in list_models() and model_spec(spec.name).family == spec.family
    name = spec.name if known else default
    registered = model_spec(name)
    options = {key: getattr(spec, key) for key in _ARCHITECTURE if getattr(spec, key) != getattr(registered, key)}
    return {
        "name": name,
        "options": {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()},
        "init": init,
    }


def plan_classification(
    spec: ModelSpec, init: str, labels: npt.NDArray[np.integer], short_side: int, choices: Choices
) -> Plan:
    """The recipe for images of these classes.

    Args:
        spec: of the model to start from.
        init: its checkpoint.
        labels: of the training images, [N].
        short_side: median of the photographs' shorter sides in pixels.
        choices: of the person.

    Raises:
        InputError: for a model or size that cannot be used.
        RecipeError: for an override that is none.
    """
    size, about_size = _size(spec, short_side, choices.image_size)
    count = len(labels)
    batch = choices.batch or min(16 if count < 2000 else 32 if count < 10_000 else 64, count)
    epochs = choices.epochs or min(max(EPOCHS[0], math.ceil(VIEWS / count)), EPOCHS[1])
    steps = max(1, epochs * (count // batch))
    balanced, about_classes = _balance(labels, choices.balance)
    settings = spec.superpixels
    superpixels, clusters = segments(spec, size)
    lr = choices.lr or round(6e-4 * math.sqrt(batch / 16), 6)
    smoothing = 0.1
    data = {
        "name": "classify",
        "program": "supervised",
        "notes": "Made by cast-train classify from the data and its options.",
        "model": {
            **model_section(dataclasses.replace(spec, clusters=clusters), init),
            "dropout": 0.0,
            "head_start": "random" if choices.taxonomy else "probe",
        },
        "superpixels": {**dataclasses.asdict(settings), "count": superpixels},
        "augment": {
            "image_size": size,
            "scale": [0.35, 1.0],
            "mixup": MIXUP if batch % 2 == 0 else 0.0,
            "eval_resize": 0,
            "eval_mean": list(spec.mean),
            "eval_std": list(spec.std),
        },
        "optimizer": {"name": "adamw", "lr": lr, "weight_decay": 0.05, "layer_decay": 0.8},
        "schedule": {"kind": "cosine", "epochs": epochs, "warmup": round(0.1 * epochs, 2)},
        "train": {
            "batch": batch,
            "precision": choices.precision,
            "ema": round(min(max(1 - 6 / steps, 0.5), 0.9998), 4),
            "label_smoothing": smoothing,
            "class_balance": balanced,
            "seed": choices.seed,
        },
        "taxonomy": {"tree": choices.taxonomy},
    }
    asked = () if choices.epochs is None else (f"schedule.epochs={choices.epochs}",)
    recipe = overridden(data, (*asked, *choices.overrides))
    check_batch(recipe, count)
    lines = (
        about_size,
        f"{length_of(recipe, count)}, {recipe.train.batch} a step; a cosine from {recipe.optimizer.lr:g}, "
        "lower towards the image",
        "the head starts as a linear probe of the frozen model; all layers learn; the weights are averaged over steps"
        if recipe.model.head_start == "probe"
        else "the heads start random; all layers learn; the weights are averaged over steps",
        f"random crops of {100 * recipe.augment.scale[0]:.0f} to {100 * recipe.augment.scale[1]:.0f} % of the area, "
        f"mirror images; {'further changes of colour and shape' if recipe.augment.rand_augment else 'colours stay'}"
        f"{'; images mixed in pairs' if recipe.augment.mixup else ''}",
        about_classes,
    )
    return Plan(recipe, lines)


def check_batch(recipe: Recipe, count: int) -> None:
    """Refuse a step of more images than there are, before a run begins.

    Raises:
        InputError: naming both numbers.
    """
    if recipe.train.batch > count:
        raise InputError(
            f"A step takes {recipe.train.batch} images, and there are {count} to train on.",
            remedy=f"--batch {count}, or fewer",
        )


def length_of(recipe: Recipe, count: int) -> str:
    """How long a run on so many images takes by its recipe, in words."""
    schedule = recipe.schedule
    if schedule.ends_by == "minutes":
        return f"{schedule.minutes:g} minutes of training on {count} images"
    if schedule.ends_by == "steps":
        return f"{schedule.steps} steps on {count} images"
    return f"{schedule.epochs} epochs of {count} training images"


def segments(spec: ModelSpec, size: int) -> tuple[int, tuple[int, ...]]:
    """Superpixels as large as the model knows them, and segments per level: fewer where there are fewer superpixels.

    Raises:
        InputError: for a size that SEEDS cannot divide so.
    """
    known = spec.superpixels.count
    wanted = max(25, round(known * (size / spec.image_size) ** 2))
    count = seeds_count(size, size, wanted)
    if count >= known:
        return wanted, spec.clusters
    part, fewest = count / known, len(spec.clusters) + 1  # two at the coarsest level
    return wanted, tuple(max(fewest - level, round(kept * part)) for level, kept in enumerate(spec.clusters))


def overridden(data: dict[str, Any], overrides: Iterable[str]) -> Recipe:
    """The recipe of `data` with `--set` values.

    Raises:
        RecipeError: for an unknown key or a value of another type.
    """
    for one in epochs_obey(data, list(overrides)):
        override(data, one)
    return recipe_from_dict(data)


def _size(spec: ModelSpec, short_side: int, chosen: int | None) -> tuple[int, str]:
    """Side of the model's input, and why."""
    patch = spec.patch_size
    if chosen is not None:
        if spec.positions == "learned" and chosen != spec.image_size:
            raise InputError(
                f"--image-size is {chosen}, and {spec.name} learned its positions for {spec.image_size} pixels.",
                remedy="leave --image-size out, or start from a model with fixed positions (the bundled one)",
            )
        if chosen % patch or chosen < 4 * patch:
            raise InputError(
                f"--image-size is {chosen}, not a multiple of {patch} from {4 * patch} on.",
                remedy=f"--image-size {max(4, round(chosen / patch)) * patch}",
            )
        return chosen, f"{chosen} x {chosen} pixels, as asked"
    return spec.image_size, f"{spec.image_size} x {spec.image_size} pixels, as {spec.name} was trained"


def _balance(labels: npt.NDArray[np.integer], asked: str) -> tuple[float, str]:
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    ratio = counts.max() / counts.min()
    spread = (
        f"{counts.min()} to {counts.max()} training images" if ratio > 1 else f"{counts.min()} training images each"
    )
    text = f"classes have {spread}"
    if asked == "yes" or (asked == "auto" and ratio >= UNEQUAL):
        return 1.0, f"{text}: images of rare classes are drawn more often, so that all classes count alike"
    if asked == "no" and ratio >= UNEQUAL:
        return 0.0, f"{text}: each image is drawn once an epoch, as asked"
    return 0.0, f"{text}: no balancing needed"
