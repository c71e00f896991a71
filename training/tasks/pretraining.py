"""MoCo-v3 pre-training: the contrastive loss, whose momentum rises with the schedule. There is no validation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cast_sdk.errors import RecipeError
from cast_sdk.models import MoCo, model_spec
from cast_sdk.models.checkpoints.layouts import official_checkpoint
from cast_sdk.training.data import transforms
from cast_sdk.training.data.views import TwoViews
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.launch import open_images
from cast_sdk.training.engine.models import set_dropout
from cast_sdk.training.engine.options import Run
from cast_sdk.training.engine.recipe.settings import Recipe
from cast_sdk.training.engine.schedules import moco_momentum
from cast_sdk.training.engine.task import SHARED, Task


def create(recipe: Recipe) -> MoCo:
    """The recipe's wrapper with random weights drawn from its seed; encoders with a projector for a head."""
    moco = recipe.moco
    spec = model_spec(
        recipe.model.name,
        **{
            "image_size": recipe.augment.image_size,
            "superpixels": recipe.superpixels.settings(),
            "num_classes": 0,
            "head": "projector",
            "head_dims": (moco.hidden_dim, moco.feature_dim),
            **recipe.model.options,
        },
    )
    torch.manual_seed(recipe.train.seed)
    model = MoCo(spec, moco.temperature, recipe.model.sampler)
    model.base_encoder.initialise()
    model.copy_base()
    set_dropout(model, recipe.model.dropout)
    if recipe.train.channels_last:
        for encoder in (model.base_encoder, model.momentum_encoder):
            stem = encoder.get_submodule("patch_embed")
            stem.to(memory_format=torch.channels_last)
    return model.train()


class Pretraining(Task):
    """Task of pretrain.py. The momentum encoder moves inside the forward pass."""

    program = "pretrain"
    layout = "moco"
    reads = (SHARED - {"train.accumulation"}) | {
        "model.dropout",
        "augment.image_size",
        "augment.scale",
        "augment.interpolation",
        "augment.flip",
        "train.sync_bn",
        "train.channels_last",
        "moco",
    }
    rolling = "checkpoint.pth.tar"

    def __init__(self, recipe: Recipe, model: MoCo, views: TwoViews, world: World, keep_every: int = 50) -> None:
        super().__init__(recipe, model, views, world)
        self.views: TwoViews = views
        self.keep_every = keep_every

    @classmethod
    def open(cls, recipe: Recipe, run: Run, world: World, keep_every: int = 50) -> Pretraining:
        images = open_images(run, ("train",), world)["train"]
        model = create(recipe).to(world.device)
        return cls(recipe, model, TwoViews(images, recipe, model.spec.uses_superpixels), world, keep_every)

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        if recipe.model.init:
            raise RecipeError(
                f"model.init is {recipe.model.init}, but pre-training starts from random weights.",
                remedy="remove model.init; an interrupted run continues from its --out folder",
            )
        if recipe.train.accumulation != 1:
            raise RecipeError(
                f"train.accumulation is {recipe.train.accumulation}; MoCo contrasts the images of one forward pass, "
                "so accumulated steps would be another loss.",
                remedy="--set train.accumulation=1 with more processes or a smaller train.batch",
            )
        super().check(recipe)

    def loss(self, batch: Any, fraction: float) -> Tensor:
        device = self.world.device
        images = [transforms.normalise(view.to(device, non_blocking=True)) for view in batch[0]]
        if self.recipe.train.channels_last:
            images = [view.contiguous(memory_format=torch.channels_last) for view in images]
        maps = [labels.to(device, non_blocking=True) for labels in batch[1]]
        epochs = self.recipe.schedule.epochs
        momentum = moco_momentum(fraction * epochs, self.recipe.moco.momentum, epochs)
        loss, _ = self.wrapped(tuple(images), tuple(maps), momentum, self.views.count(maps[0]))
        return loss

    def files(self, epoch: int, is_best: bool, fraction: float) -> list[str]:
        kept = (epoch + 1) % self.keep_every == 0 or fraction >= 1
        return [f"checkpoint_{epoch:04d}.pth.tar"] if kept else []

    def checkpoint(self, epoch: int, outer: dict[str, Any]) -> dict[str, Any]:
        return official_checkpoint(self.model, self.layout, epoch=epoch + 1, **outer)
