"""Train a linear classifier on the frozen features of a pre-trained encoder, as MoCo-v3 reports them.

One CPU or one GPU; what pre-training left, published weights, or random weights to compare with:
    python training/linear_probe.py --recipe tiny_lincls --checkpoint FILE --data DATA --out runs/probe
    python training/linear_probe.py --recipe tiny_lincls --checkpoint random --data DATA --out runs/probe_random
Eight GPUs:
    torchrun --nproc-per-node 8 training/linear_probe.py --recipe lincls_in1k_cast_small --checkpoint FILE ...
The same command continues an interrupted run. `python -m cast_sdk.training.linear_probe` is the same program.
Writes OUT/checkpoint.pth.tar and model_best.pth.tar (the probe's layout), log.jsonl and tensorboard/.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.errors import CheckpointError, RecipeError
from cast_sdk.training.engine.options import run_options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cast_sdk.training.data.dataset import Images
    from cast_sdk.training.engine.distributed import World
    from cast_sdk.training.engine.loop import Options
    from cast_sdk.training.engine.recipe import Phase, Recipe

RANDOM = "random"


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--checkpoint", required=True, help=f"Pre-training file, hf://owner/repository/file, or {RANDOM!r}.")
@run_options("Folder with train/val images.")
def main(
    recipe: str,
    checkpoint: str,
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
        settings = load_recipe(recipe, overrides, "linear_probe")
        world = start(device)
        images = {split: load_images(data, split, on_bad_image, cache, world) for split in ("train", "val")}
        check_same_classes(images)
        options = Options(out, log_every, eval_every, save_minutes, allow_world_size, rolling="checkpoint.pth.tar")
        train(settings, checkpoint, images, world, options, workers)
        world.finish()


def create(recipe: Recipe, checkpoint: str, classes: list[str]) -> nn.Module:
    """The encoder of a pre-training file (or random weights) with a fresh head, N(0, 0.01) and zero bias.

    Everything but `head.weight` and `head.bias` is frozen. `model.options.num_classes` sets the width of the head; the
    published ImageNet-100 probes have 1000 outputs of which 900 are never a target.

    Raises:
        RecipeError: when the file holds another model than the recipe's, or the head is too narrow.
    """
    import torch

    from cast_sdk.models import load_model, model_spec
    from cast_sdk.training.engine import models

    random_model = models.create(recipe, classes)
    spec: Any = random_model.spec
    if spec.num_classes < len(classes):
        raise RecipeError(
            "The head needs an output for every class.",
            found=f"{spec.num_classes} outputs, {len(classes)} classes",
            remedy="--set model.options.num_classes=N",
        )
    model = random_model
    if checkpoint != RANDOM:
        model = load_model(checkpoint, num_classes=spec.num_classes, sampler=recipe.model.sampler)
        given: Any = model.spec
        if [getattr(given, key) for key in _SHAPE] != [getattr(spec, key) for key in _SHAPE]:
            raise RecipeError(
                f"The checkpoint must hold the recipe's model, {model_spec(recipe.model.name).name}.",
                found=f"{checkpoint}: " + ", ".join(f"{key} {getattr(given, key)}" for key in _SHAPE),
                remedy="use the recipe of that model, or --set model.name=NAME",
            )
    torch.manual_seed(recipe.train.seed)
    model.requires_grad_(False)
    head: Any = model.get_submodule("head")
    torch.nn.init.normal_(head.weight, std=0.01)
    torch.nn.init.zeros_(head.bias)
    head.requires_grad_(True)
    return model.eval()


_SHAPE = ("family", "embed_dim", "depths", "num_heads", "image_size")


def train(
    recipe: Recipe, checkpoint: str, images: dict[str, Images], world: World, options: Options, workers: int = 0
) -> dict[str, float]:
    """Run a probe on the splits "train" and "val"; returns the best validation metrics (the published number)."""
    from cast_sdk.training.data.dataset import LabelledViews, loader
    from cast_sdk.training.data.sampler import EpochSampler
    from cast_sdk.training.engine.loop import Loop
    from cast_sdk.training.engine.optim import build_optimizer
    from cast_sdk.training.engine.schedules import scaled_lr

    settings = recipe.train
    model = create(recipe, checkpoint, images["train"].source.classes).to(world.device)
    spec: Any = model.spec
    segmented = spec.uses_superpixels
    train_views: Any = LabelledViews(images["train"], recipe, train=True, superpixels=segmented)
    val_views: Any = LabelledViews(images["val"], recipe, train=False, superpixels=segmented)
    if recipe.probe.passes:
        train_views = features(model, train_views, recipe.probe.passes, recipe, world, workers)
        val_views = features(model, val_views, 1, recipe, world, workers)
    batch = world.per_process(settings.batch, settings.accumulation)
    # A last batch with no image for some process cannot be trained on.
    drop_last = settings.drop_last or 0 < len(train_views) % settings.batch < world.size
    sampler = EpochSampler(
        len(train_views), batch, seed=settings.seed, rank=world.rank, world=world.size, drop_last=drop_last
    )
    lr = scaled_lr(recipe.optimizer.lr, settings.batch, recipe.optimizer.reference_batch)
    optimizer = build_optimizer(model, recipe.optimizer, lr)
    task = LinearProbe(recipe, model, checkpoint, train_views, val_views, world, workers)
    batches = loader(train_views, sampler, 0 if recipe.probe.passes else workers, pin=world.device.type == "cuda")
    return Loop(task, recipe, sampler, batches, optimizer, world, options).run()


class Features:
    """Embeddings [passes,N,C] of augmented passes in place of images. Epoch e reads pass e mod passes."""

    def __init__(self, embeddings: Tensor, labels: Tensor) -> None:
        self.embeddings, self.labels = embeddings, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        index, epoch, _ = key
        return self.embeddings[epoch % len(self.embeddings), index], self.labels[index]


def features(model: nn.Module, views: Any, passes: int, recipe: Recipe, world: World, workers: int) -> Features:
    """The frozen encoder's embeddings of `passes` passes over a data set, computed by all processes together."""
    import torch

    from cast_sdk.training.data.dataset import loader
    from cast_sdk.training.data.sampler import EpochSampler
    from cast_sdk.training.evaluate import to_device

    spec: Any = model.spec
    length = len(views)
    embeddings = torch.zeros(passes, length, spec.embed_dim, device=world.device)
    labels = torch.zeros(length, dtype=torch.long, device=world.device)
    batch = recipe.probe.eval_batch
    sampler = EpochSampler(length, batch, rank=world.rank, world=world.size, shuffle=False, drop_last=False)
    for number in range(passes):
        sampler.set_position(number)
        keys = iter(list(sampler))
        with torch.no_grad():
            for packed in loader(views, sampler, workers):
                images, superpixels, targets = to_device(packed, world.device)
                rows = torch.tensor([index for index, _, _ in next(keys)], device=world.device)
                embeddings[number, rows] = model(images, superpixels, views.count(superpixels)).embedding.float()
                if number == 0:
                    labels[rows] = targets
        if world.main:
            print(f"features: pass {number + 1} of {passes}, {length} images", flush=True)
    return Features(world.sum(embeddings).cpu(), world.sum(labels).cpu())


class LinearProbe:
    """Task of the loop: cross entropy of the head; the encoder stays frozen and in evaluation mode."""

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        checkpoint: str,
        views: Any,
        validation: Any,
        world: World,
        workers: int = 0,
    ) -> None:
        self.recipe, self.model, self.world, self.workers = recipe, model, world, workers
        self.source, self.views, self.validation = checkpoint, views, validation
        self.wrapped = world.wrap(_frozen(model))
        trained = sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
        if trained != ["head.bias", "head.weight"]:
            raise RecipeError("A linear probe trains the head alone.", found=", ".join(trained) or "nothing to train")
        self.before = {key: value.clone() for key, value in model.state_dict().items() if not _is_head(key)}
        self.checked = False

    def loss(self, batch: Any) -> Tensor:
        import torch.nn.functional as F

        logits, targets = self._logits(batch, self.views)
        return F.cross_entropy(logits.float(), targets)

    def _logits(self, batch: Any, views: Any) -> tuple[Tensor, Tensor]:
        if isinstance(views, Features):
            embeddings, targets = (tensor.to(self.world.device) for tensor in batch)
            return self.wrapped(embeddings), targets
        from cast_sdk.training.evaluate import to_device

        images, superpixels, targets = to_device(batch, self.world.device)
        return self.wrapped(images, superpixels, views.count(superpixels)), targets

    def after_step(self, fraction: float) -> None:
        """Nothing follows a step."""

    def enter_phase(self, phase: Phase) -> None:
        raise RecipeError("Probe recipes have no phases.", found=repr(phase), remedy="remove `phases`")

    def validate(self) -> dict[str, float]:
        if not self.checked:
            check_frozen(self.model, self.before, self.source)
            self.checked = True
        if isinstance(self.validation, Features):
            return self._validate_features()
        from cast_sdk.training.evaluate import accuracy

        return accuracy(self.model, self.validation, self.world, self.recipe.probe.eval_batch, workers=self.workers)

    def _validate_features(self) -> dict[str, float]:
        import torch
        import torch.nn.functional as F

        head: Any = self.model.get_submodule("head")
        with torch.no_grad():
            logits = head(self.validation.embeddings[0].to(self.world.device)).cpu()
        targets = self.validation.labels
        hits = logits.topk(min(5, logits.shape[1]), 1).indices == targets[:, None]
        return {
            "top1": 100 * float(hits[:, 0].double().mean()),
            "top5": 100 * float(hits.any(1).double().mean()),
            "loss": float(F.cross_entropy(logits, targets)),
        }

    def better(self, new: dict[str, float], best: dict[str, float]) -> bool:
        return new["top1"] > best.get("top1", -1.0)

    def files(self, epoch: int, is_best: bool) -> list[str]:
        return ["model_best.pth.tar"] if is_best else []

    def checkpoint(self, epoch: int, outer: dict[str, Any]) -> dict[str, Any]:
        import torch

        from cast_sdk.models.checkpoints import official_checkpoint

        best = torch.tensor(float(outer["resume"]["best"].get("top1", 0.0)))
        return official_checkpoint(self.model, "lincls", epoch=epoch + 1, best_acc1=best, **outer)

    def restore(self, raw: dict[str, Any]) -> None:
        state = raw["state_dict"]
        self.model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})


def _is_head(key: str) -> bool:
    return key in ("head.weight", "head.bias")


def check_frozen(model: nn.Module, before: dict[str, Tensor], source: str) -> None:
    """Every tensor but the head, buffers included, must still be the pre-trained one, bit for bit.

    Raises:
        CheckpointError: naming what changed.
    """
    import torch

    state = model.state_dict()
    changed = [key for key, value in before.items() if not torch.equal(state[key], value)]
    if changed:
        raise CheckpointError(
            "A linear probe leaves the encoder as it was.",
            found=f"{len(changed)} tensors differ from {source}, first {changed[0]}",
            remedy="probe from the file the run was started with, in a new --out folder",
        )


def _frozen(model: nn.Module) -> nn.Module:
    """The model as the loop calls it: `train()` does not reach it; one tensor in means embeddings."""
    from torch import nn

    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

        def forward(self, x: Tensor, superpixels: Tensor | None = None, count: int | None = None) -> Any:
            if superpixels is None:
                return self.model.get_submodule("head")(x)
            return self.model(x, superpixels, num_superpixels=count).logits

    return Frozen()


if __name__ == "__main__":
    main()
