"""Models as recipes describe them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cast_sdk import bundled
from cast_sdk.errors import RecipeError
from cast_sdk.models.base import Model
from cast_sdk.taxonomy import HEAD_NAMES
from cast_sdk.training.engine.recipe.settings import Recipe

BUNDLED = "bundled"  # as model.init: the weights that come with the package


def create(recipe: Recipe, classes: Sequence[str], **overrides: Any) -> Model:
    """The recipe's model with random weights drawn from its seed, or from `model.init`; it knows its class names.

    `model.init` may be of another image size, where positions are fixed, and of other classes: then the head is new.
    """
    from cast_sdk.models import create_model, load_model
    from cast_sdk.training.data.taxonomy import taxonomy_for

    taxonomy = taxonomy_for(recipe.taxonomy.tree, classes) if recipe.taxonomy.tree else ()
    options = {
        "num_classes": len(classes),
        "class_names": taxonomy[0].class_names if taxonomy else tuple(classes),
        "taxonomy": taxonomy,
        "image_size": recipe.augment.image_size,
        "mean": recipe.augment.eval_mean,
        "std": recipe.augment.eval_std,
        "superpixels": recipe.superpixels.settings(),
        **recipe.model.options,
        **overrides,
    }
    asked = options["num_classes"]
    if isinstance(asked, int) and asked < len(classes) and not taxonomy:
        raise RecipeError(
            f"The model has {asked} classes, and the data has {len(classes)}.",
            remedy="leave num_classes out of model.options",
        )
    torch.manual_seed(recipe.train.seed)
    model = create_model(recipe.model.name, sampler=recipe.model.sampler, **options)
    if recipe.model.init:
        kept = None if taxonomy else options["num_classes"]
        weights = load_model(start_file(recipe.model.init), num_classes=kept, sampler=recipe.model.sampler).state_dict()
        ours = model.state_dict()
        if model.spec.positions == "fixed":
            weights["pos_embed"] = ours["pos_embed"]  # computed; of another size where the image is
        # Heads of a taxonomy that have other widths, or that the start does not have, begin afresh.
        fresh = {key for key in ours if taxonomy and key.split(".")[0] in HEAD_NAMES and _differs(weights, ours, key)}
        keys = [key for key in ours if key not in fresh]
        load_fitting(model, weights, recipe.model.init, "check model.name and model.options", keys)
    if recipe.levels.weight:
        model.get_submodule("pool4.pool_block.centroid_fc").requires_grad_(True)
    set_dropout(model, recipe.model.dropout)
    if recipe.train.channels_last:
        stem = model.get_submodule("patch_embed")
        stem.to(memory_format=torch.channels_last)
    return model.train()


def start_file(init: str) -> str:
    """What `load_model` opens for a recipe's `model.init`, which may be "bundled"."""
    return str(bundled.path(bundled.WEIGHTS)) if init == BUNDLED else init


def _differs(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], key: str) -> bool:
    return key not in theirs or theirs[key].shape != ours[key].shape


def load_fitting(
    model: nn.Module, weights: Mapping[str, Tensor], source: str, remedy: str, keys: Collection[str] | None = None
) -> None:
    """Take tensors from other weights, all or none.

    Args:
        model: to fill.
        weights: may hold more than the model needs.
        source: where they come from, for the message.
        remedy: for the message.
        keys: of the state dict; None: all. The other tensors stay as they are.

    Raises:
        RecipeError: when a tensor is missing or has another shape, naming the first one.
    """
    ours = model.state_dict()
    wanted = list(ours if keys is None else keys)
    misfit = [key for key in wanted if key not in weights or weights[key].shape != ours[key].shape]
    if misfit:
        key = misfit[0]
        there = tuple(weights[key].shape) if key in weights else "missing"
        raise RecipeError(
            f"{source} does not fit the recipe's model: {len(misfit)} of {len(wanted)} tensors differ.",
            found=f"{key}: {there} for {tuple(ours[key].shape)}",
            remedy=remedy,
        )
    model.load_state_dict({**ours, **{key: weights[key] for key in wanted}})


def set_dropout(model: nn.Module, rate: float | None) -> None:
    """Another rate for every dropout of a model; None keeps the reference's (0.1 in poolings, 0.2 in the fusion)."""
    for module in model.modules():
        if rate is not None and isinstance(module, nn.Dropout):
            module.p = rate


def set_clusters(model: nn.Module, clusters: Sequence[int]) -> None:
    """Segments per level; no weight depends on them."""
    for level, count in enumerate(clusters, 1):
        model.get_submodule(f"pool{level}.pool_block").clusters = count  # type: ignore[assignment]
