"""Models as recipes describe them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from cast_sdk.errors import RecipeError
from cast_sdk.training.engine.recipe import Recipe


def create(recipe: Recipe, classes: Sequence[str], **overrides: Any) -> nn.Module:
    """The recipe's model with random weights drawn from its seed, or from `model.init`; it knows its class names."""
    from cast_sdk.models import create_model, load_model

    options = {
        "num_classes": len(classes),
        "class_names": tuple(classes),
        "image_size": recipe.augment.image_size,
        "superpixels": recipe.superpixels.settings(),
        **recipe.model.options,
        **overrides,
    }
    torch.manual_seed(recipe.train.seed)
    model = create_model(recipe.model.name, sampler=recipe.model.sampler, **options)
    if recipe.model.init:
        start = load_model(recipe.model.init, num_classes=options["num_classes"], sampler=recipe.model.sampler)
        theirs, ours = start.state_dict(), model.state_dict()
        misfit = [key for key in ours if key not in theirs or theirs[key].shape != ours[key].shape]
        if misfit:
            raise RecipeError(
                f"{recipe.model.init} does not fit the recipe's model.",
                found=f"{len(misfit)} of {len(ours)} tensors differ, first {misfit[0]}",
                remedy="check model.name and model.options",
            )
        model.load_state_dict({key: theirs[key] for key in ours})
    set_dropout(model, recipe.model.dropout)
    if recipe.train.channels_last:
        stem = model.get_submodule("patch_embed")
        stem.to(memory_format=torch.channels_last)
    return model.train()


def set_dropout(model: nn.Module, rate: float | None) -> None:
    """Another rate for every dropout of a model; None keeps the reference's (0.1 in poolings, 0.2 in the fusion)."""
    for module in model.modules():
        if rate is not None and isinstance(module, nn.Dropout):
            module.p = rate


def set_clusters(model: nn.Module, clusters: Sequence[int]) -> None:
    """Segments per level; no weight depends on them."""
    for level, count in enumerate(clusters, 1):
        model.get_submodule(f"pool{level}.pool_block").clusters = count  # type: ignore[assignment]
