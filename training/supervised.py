"""Train a classifier from labels: the DeiT recipe for CAST, and small recipes for small data.

One CPU or one GPU:
    python training/supervised.py --recipe tiny_supervised --data DATA --out runs/tiny
Two processes on two cores, eight GPUs on one node, two nodes:
    torchrun --nproc-per-node 2 training/supervised.py --recipe tiny_supervised --data DATA --out runs/tiny
    torchrun --nproc-per-node 8 training/supervised.py --recipe deit_cast_small --data ILSVRC2014/Img --out runs/deit
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-endpoint HOST:29500 training/supervised.py ...
The same command continues an interrupted run. `python -m cast_sdk.training.supervised` is the same program.
Writes OUT/checkpoint.pth and best_checkpoint.pth (DeiT's layout), log.jsonl and tensorboard/.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.training.engine.options import run_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cast_sdk.training.data.dataset import Images
    from cast_sdk.training.engine.distributed import World
    from cast_sdk.training.engine.loop import Options
    from cast_sdk.training.engine.recipe import Phase, Recipe


@click.command(help=(__doc__ or "").partition("\n")[0])
@run_options("Folder with train/val images.")
def main(
    recipe: str,
    data: Path,
    out: Path,
    overrides: tuple[str, ...],
    device: str,
    workers: int,
    cache: bool,
    on_bad_image: Any,
    eval_every: int,
    log_every: int,
    save_minutes: float,
    allow_world_size: bool,
) -> None:
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import check_same_classes, errors_for_people, load_images
    from cast_sdk.training.engine.loop import Options
    from cast_sdk.training.engine.recipe import load_recipe

    with errors_for_people():
        settings = load_recipe(recipe, overrides, "supervised")
        world = start(device)
        images = {split: load_images(data, split, on_bad_image, cache, world) for split in ("train", "val")}
        check_same_classes(images)
        options = Options(out, log_every, eval_every, save_minutes, allow_world_size)
        train(settings, images, world, options, workers)
        world.finish()


def train(
    recipe: Recipe, images: dict[str, Images], world: World, options: Options, workers: int = 0
) -> dict[str, float]:
    """Run a supervised recipe on the splits "train" and "val"; returns the best validation metrics."""
    from cast_sdk.training.data.dataset import LabelledViews, loader
    from cast_sdk.training.data.sampler import EpochSampler
    from cast_sdk.training.engine.loop import Loop
    from cast_sdk.training.engine.models import create
    from cast_sdk.training.engine.optim import build_optimizer
    from cast_sdk.training.engine.schedules import scaled_lr

    settings = recipe.train
    batch = world.per_process(settings.batch, settings.accumulation)
    views = LabelledViews(images["train"], recipe, train=True)
    sampler = EpochSampler(
        len(views), batch, seed=settings.seed, repeats=recipe.augment.repeats, rank=world.rank, world=world.size
    )
    model = create(recipe, images["train"].source.classes).to(world.device)
    lr = scaled_lr(recipe.optimizer.lr, settings.batch, recipe.optimizer.reference_batch)
    optimizer = build_optimizer(model, recipe.optimizer, lr)
    task = Supervised(recipe, model, views, LabelledViews(images["val"], recipe, train=False), world, workers)
    batches = loader(views, sampler, workers, pin=world.device.type == "cuda")
    return Loop(task, recipe, sampler, batches, optimizer, world, options).run()


class Supervised:
    """Task of the loop: cross entropy on the class token, mixup, EMA, top-1 and top-5."""

    def __init__(
        self, recipe: Recipe, model: nn.Module, views: Any, validation: Any, world: World, workers: int = 0
    ) -> None:
        import torch

        from cast_sdk.training.engine.ema import Ema

        self.recipe, self.model, self.world, self.workers = recipe, model, world, workers
        self.views, self.validation = views, validation
        settings = recipe.train
        self.wrapped = world.wrap(model, settings.sync_bn)
        self.ema = Ema(model, settings.ema, settings.ema_aliases) if settings.ema else None
        self.mix = self._mixup(model.spec.num_classes)  # type: ignore[union-attr, arg-type]
        self.criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.0 if self.mix else settings.label_smoothing)

    def _mixup(self, classes: int) -> Any:
        augment = self.recipe.augment
        if not (augment.mixup or augment.cutmix):
            return None
        from timm.data import Mixup

        return Mixup(
            augment.mixup,
            augment.cutmix,
            prob=1.0,
            switch_prob=augment.mix_switch,
            mode="batch",
            label_smoothing=self.recipe.train.label_smoothing,
            num_classes=classes,
        )

    def loss(self, batch: Any) -> Tensor:
        from cast_sdk.training.evaluate import to_device

        images, superpixels, targets = to_device(batch, self.world.device, self.recipe.train.channels_last)
        if self.mix is not None:  # superpixels stay those of the unmixed images
            images, targets = self.mix(images, targets)
        logits = self.wrapped(images, superpixels, num_superpixels=self.views.count(superpixels)).logits
        return self.criterion(logits.float(), targets)

    def after_step(self, fraction: float) -> None:
        if self.ema is not None:
            self.ema.update()

    def enter_phase(self, phase: Phase) -> None:
        from cast_sdk.training.engine.models import set_clusters

        if phase.clusters:
            for model in (self.model, *([self.ema.model] if self.ema else [])):
                set_clusters(model, phase.clusters)
        if phase.superpixels:
            self.views.set_count(phase.superpixels)
            self.validation.set_count(phase.superpixels)

    def validate(self) -> dict[str, float]:
        from cast_sdk.training.evaluate import accuracy

        batch = max(1, self.recipe.train.batch // self.world.size)

        def measured(model: nn.Module) -> dict[str, float]:
            return accuracy(
                model, self.validation, self.world, batch, precision=self.recipe.train.precision, workers=self.workers
            )

        metrics = measured(self.model)
        if self.ema is not None:
            metrics |= {f"ema_{name}": value for name, value in measured(self.ema.model).items()}
        return metrics

    def better(self, new: dict[str, float], best: dict[str, float]) -> bool:
        return new["top1"] > best.get("top1", -1.0)

    def files(self, epoch: int, is_best: bool) -> list[str]:
        return ["best_checkpoint.pth"] if is_best else []

    def checkpoint(self, epoch: int, outer: dict[str, Any]) -> dict[str, Any]:
        import argparse

        from cast_sdk.models.checkpoints import official_checkpoint, official_state

        average = {"model_ema": official_state(self.ema.model, "deit")} if self.ema else {}
        arguments = argparse.Namespace(recipe=self.recipe.name, seed=self.recipe.train.seed)
        scheduler = {"t_in_epochs": True, "epoch": epoch}
        return official_checkpoint(
            self.model, "deit", **average, lr_scheduler=scheduler, epoch=epoch, args=arguments, **outer
        )

    def restore(self, raw: dict[str, Any]) -> None:
        self.model.load_state_dict(raw["model"])
        if self.ema is not None:
            self.ema.model.load_state_dict(raw["model_ema"])


if __name__ == "__main__":
    main()
