"""Pre-train without labels by MoCo-v3: CAST, conv-ViT, ViT and ToMe on ImageNet-1K, ImageNet-100, COCO or your images.

One CPU or one GPU:
    python training/pretrain.py --recipe tiny_moco --data DATA --out runs/tiny_moco
Eight GPUs on one node, two nodes:
    torchrun --nproc-per-node 8 training/pretrain.py --recipe moco_in1k_cast_small --data ILSVRC2014/Img --out runs/moco
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-endpoint HOST:29500 training/pretrain.py ...
The same command continues an interrupted run. `python -m cast_sdk.training.pretrain` is the same program.
Writes OUT/checkpoint.pth.tar, which the run resumes from, checkpoint_XXXX.pth.tar (XXXX: epoch, from 0; MoCo's layout),
log.jsonl and tensorboard/. Next: training/linear_probe.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.errors import RecipeError
from cast_sdk.training.engine.options import run_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cast_sdk.models.moco import MoCo
    from cast_sdk.training.data.dataset import Images
    from cast_sdk.training.engine.distributed import World
    from cast_sdk.training.engine.loop import Options
    from cast_sdk.training.engine.recipe import Phase, Recipe


@click.command(help=(__doc__ or "").partition("\n")[0])
@run_options("Folder with train/<class>/ or shards.", eval_every=None)
@click.option("--keep-every", default=50, show_default=True, help="Epochs between kept checkpoints (and the last).")
def main(
    recipe: str,
    data: Path,
    out: Path,
    overrides: tuple[str, ...],
    device: str,
    workers: int,
    cache: bool,
    on_bad_image: Any,
    keep_every: int,
    log_every: int,
    save_minutes: float,
    allow_world_size: bool,
) -> None:
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people, load_images
    from cast_sdk.training.engine.loop import Options
    from cast_sdk.training.engine.recipe import load_recipe

    with errors_for_people():
        settings = load_recipe(recipe, overrides, "pretrain")
        world = start(device)
        images = load_images(data, "train", on_bad_image, cache, world)
        options = Options(out, log_every, 1, save_minutes, allow_world_size, rolling="checkpoint.pth.tar")
        train(settings, images, world, options, workers, keep_every)
        world.finish()


def create(recipe: Recipe) -> MoCo:
    """The recipe's wrapper with random weights drawn from its seed; encoders with a projector for a head.

    Raises:
        RecipeError: when `model.init` is set: the recipes start from random weights, runs resume by themselves.
    """
    import torch

    from cast_sdk.models import MoCo, model_spec
    from cast_sdk.training.data.transforms import settings
    from cast_sdk.training.engine.models import set_dropout

    if recipe.model.init:
        raise RecipeError(
            "Pre-training starts from random weights.",
            found=f"model.init={recipe.model.init}",
            remedy="remove model.init; an interrupted run continues from its --out folder",
        )
    moco = recipe.moco
    spec = model_spec(
        recipe.model.name,
        **{
            "image_size": recipe.augment.image_size,
            "superpixels": settings(recipe.superpixels),
            "num_classes": 0,
            "head": "projector",
            "head_dims": (moco.hidden_dim, moco.feature_dim),
            **recipe.model.options,
        },
    )
    torch.manual_seed(recipe.train.seed)
    model = MoCo(spec, moco.temperature, recipe.model.sampler)
    model.base_encoder.initialise()  # type: ignore[operator]
    model.copy_base()
    set_dropout(model, recipe.model.dropout)
    if recipe.train.channels_last:
        for encoder in (model.base_encoder, model.momentum_encoder):
            stem = encoder.get_submodule("patch_embed")
            stem.to(memory_format=torch.channels_last)
    return model.train()


def train(
    recipe: Recipe, images: Images, world: World, options: Options, workers: int = 0, keep_every: int = 50
) -> MoCo:
    """Run a pre-training recipe; returns the trained wrapper."""
    from cast_sdk.training.data.dataset import loader
    from cast_sdk.training.data.sampler import EpochSampler
    from cast_sdk.training.data.views import TwoViews
    from cast_sdk.training.engine.loop import Loop
    from cast_sdk.training.engine.optim import build_optimizer
    from cast_sdk.training.engine.schedules import scaled_lr

    settings = recipe.train
    if settings.accumulation != 1:
        raise RecipeError(
            "MoCo contrasts the images of one forward pass, so accumulated steps would be another loss.",
            found=f"train.accumulation={settings.accumulation}",
            remedy="--set train.accumulation=1 with more processes or a smaller train.batch",
        )
    model = create(recipe).to(world.device)
    views = TwoViews(images, recipe, model.spec.uses_superpixels)
    batch = world.per_process(settings.batch)
    sampler = EpochSampler(len(views), batch, seed=settings.seed, rank=world.rank, world=world.size)
    lr = scaled_lr(recipe.optimizer.lr, settings.batch, recipe.optimizer.reference_batch)
    optimizer = build_optimizer(model, recipe.optimizer, lr)
    task = Pretraining(recipe, model, views, world, keep_every)
    batches = loader(views, sampler, workers, pin=world.device.type == "cuda")
    loop = Loop(task, recipe, sampler, batches, optimizer, world, options)
    task.done = loop.fraction
    loop.run()
    return model


class Pretraining:
    """Task of the loop: the contrastive loss, whose momentum rises with the schedule. There is no validation."""

    def __init__(self, recipe: Recipe, model: MoCo, views: Any, world: World, keep_every: int = 50) -> None:
        self.recipe, self.views, self.world = recipe, views, world
        self.model: nn.Module = model
        self.keep_every = keep_every
        self.wrapped = world.wrap(model, recipe.train.sync_bn)
        self.done: Callable[[], float] = lambda: 0.0

    def loss(self, batch: Any) -> Tensor:
        import torch

        from cast_sdk.training.data.transforms import normalise
        from cast_sdk.training.engine.schedules import moco_momentum

        device, settings = self.world.device, self.recipe.train
        images = [normalise(view.to(device, non_blocking=True)) for view in batch[0]]
        if settings.channels_last:
            images = [view.contiguous(memory_format=torch.channels_last) for view in images]
        maps = [labels.to(device, non_blocking=True) for labels in batch[1]]
        epochs = self.recipe.schedule.epochs
        momentum = moco_momentum(self.done() * epochs, self.recipe.moco.momentum, epochs)
        loss, _ = self.wrapped(tuple(images), tuple(maps), momentum, self.views.count(maps[0]))
        return loss

    def after_step(self, fraction: float) -> None:
        """The momentum encoder moves inside the forward pass."""

    def enter_phase(self, phase: Phase) -> None:
        raise RecipeError("Pre-training recipes have no phases.", found=repr(phase), remedy="remove `phases`")

    def validate(self) -> dict[str, float]:
        return {}

    def better(self, new: dict[str, float], best: dict[str, float]) -> bool:
        return False

    def files(self, epoch: int, is_best: bool) -> list[str]:
        kept = (epoch + 1) % self.keep_every == 0 or self.done() >= 1
        return [f"checkpoint_{epoch:04d}.pth.tar"] if kept else []

    def checkpoint(self, epoch: int, outer: dict[str, Any]) -> dict[str, Any]:
        from cast_sdk.models.checkpoints import official_checkpoint

        return official_checkpoint(self.model, "moco", epoch=epoch + 1, **outer)

    def restore(self, raw: dict[str, Any]) -> None:
        state = raw["state_dict"]
        self.model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})


if __name__ == "__main__":
    main()
