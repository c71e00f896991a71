"""The linear probe: cross entropy of a fresh head on a frozen encoder in evaluation mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from cast_sdk.errors import CheckpointError, RecipeError
from cast_sdk.models import Model, load_model, model_spec
from cast_sdk.models.checkpoints.layouts import official_checkpoint
from cast_sdk.training.data.dataset import Images, LabelledViews, loader, to_device
from cast_sdk.training.data.sampler import EpochSampler
from cast_sdk.training.engine import models
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.launch import open_images
from cast_sdk.training.engine.options import Run
from cast_sdk.training.engine.recipe.settings import Recipe
from cast_sdk.training.engine.task import SHARED, Task
from cast_sdk.training.metrics.accuracy import accuracy, evaluation_batches

RANDOM = "random"  # in place of a checkpoint
_SHAPE = ("family", "embed_dim", "depths", "num_heads", "image_size")


def create(recipe: Recipe, checkpoint: str, classes: Sequence[str]) -> Model:
    """The encoder of a pre-training file (or random weights) with a fresh head, N(0, 0.01) and zero bias.

    Everything but `head.weight` and `head.bias` is frozen. `model.options.num_classes` sets the width of the head; the
    published ImageNet-100 probes have 1000 outputs of which 900 are never a target.

    Raises:
        RecipeError: when the file holds another model than the recipe's, or the head is too narrow.
    """
    model = models.create(recipe, classes)
    spec: Any = model.spec
    if spec.num_classes < len(classes):
        raise RecipeError(
            f"The head is too narrow: {spec.num_classes} outputs, {len(classes)} classes.",
            remedy="--set model.options.num_classes=N",
        )
    if checkpoint != RANDOM:
        model = load_model(checkpoint, num_classes=spec.num_classes, sampler=recipe.model.sampler)
        given: Any = model.spec
        if [getattr(given, key) for key in _SHAPE] != [getattr(spec, key) for key in _SHAPE]:
            raise RecipeError(
                f"{checkpoint} holds another model than the recipe's, {model_spec(recipe.model.name).name}.",
                found=", ".join(f"{key} {getattr(given, key)}" for key in _SHAPE),
                remedy="use the recipe of that model, or --set model.name=NAME",
            )
    torch.manual_seed(recipe.train.seed)
    model.requires_grad_(False)
    head: Any = model.get_submodule("head")
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    head.requires_grad_(True)
    return model.eval()


class Features(Dataset[Any]):
    """Embeddings [passes,N,C] of augmented passes in place of images. Epoch e reads pass e mod passes."""

    def __init__(self, embeddings: Tensor, labels: Tensor) -> None:
        self.embeddings, self.labels = embeddings, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        index, epoch, _ = key
        return self.embeddings[epoch % len(self.embeddings), index], self.labels[index]


def features(
    model: nn.Module, views: LabelledViews, passes: int, recipe: Recipe, world: World, workers: int
) -> Features:
    """The frozen encoder's embeddings of `passes` passes over a data set, computed by all processes together."""
    spec: Any = model.spec
    length = len(views)
    embeddings = torch.zeros(passes, length, spec.embed_dim, device=world.device)
    labels = torch.zeros(length, dtype=torch.long, device=world.device)
    batch = recipe.probe.eval_batch
    sampler = EpochSampler(length, batch, rank=world.rank, world=world.size, shuffle=False, drop_last=False)
    batches = loader(views, sampler, workers)
    for number in range(passes):
        sampler.set_position(number)
        keys = iter(list(sampler))
        with torch.no_grad():
            for packed in batches:
                images, superpixels, targets = to_device(packed, world.device)
                rows = torch.tensor([index for index, _, _ in next(keys)], device=world.device)
                embeddings[number, rows] = model(images, superpixels, views.count(superpixels)).embedding.float()
                if number == 0:
                    labels[rows] = targets
        if world.main:
            print(f"features: pass {number + 1} of {passes}, {length} images", flush=True)
    return Features(world.sum(embeddings).cpu(), world.sum(labels).cpu())


class LinearProbe(Task):
    """Task of linear_probe.py."""

    program = "linear_probe"
    layout = "lincls"
    reads = SHARED | {
        "superpixels.source",
        "augment.image_size",
        "augment.scale",
        "augment.interpolation",
        "augment.flip",
        "augment.rand_augment",
        "augment.erase",
        "augment.eval_resize",
        "train.drop_last",
        "probe",
    }
    rolling = "checkpoint.pth.tar"
    best_file = "model_best.pth.tar"
    metric = "top1"

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        checkpoint: str,
        views: LabelledViews | Features,
        validation: LabelledViews | Features,
        world: World,
        workers: int = 0,
    ) -> None:
        trained = sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)
        if trained != ["head.bias", "head.weight"]:
            raise RecipeError(
                "The model is not frozen but for its head.", found=", ".join(trained) or "nothing to train"
            )
        super().__init__(recipe, model, views, world, called=Frozen(model))
        self.views: LabelledViews | Features = views
        self.source, self.validation, self.workers = checkpoint, validation, workers
        self.in_memory = isinstance(views, Features)
        self.before = {key: value.clone() for key, value in model.state_dict().items() if not _is_head(key)}
        self.checked = False
        self.batches: DataLoader[Any] | None = None  # of the validation; made when it is first needed

    @classmethod
    def open(cls, recipe: Recipe, run: Run, world: World, checkpoint: str = RANDOM) -> LinearProbe:
        images = open_images(run, ("train", "val"), world)
        return cls.build(recipe, checkpoint, images, world, run.options.workers)

    @classmethod
    def build(
        cls, recipe: Recipe, checkpoint: str, images: Mapping[str, Images], world: World, workers: int = 0
    ) -> LinearProbe:
        """The task on the splits "train" and "val", with the features computed where the recipe wants them."""
        model = create(recipe, checkpoint, images["train"].source.classes).to(world.device)
        spec: Any = model.spec
        views = {
            split: LabelledViews(images[split], recipe, train=split == "train", superpixels=spec.uses_superpixels)
            for split in ("train", "val")
        }
        passes = recipe.probe.passes
        if not passes:
            return cls(recipe, model, checkpoint, views["train"], views["val"], world, workers)
        train = features(model, views["train"], passes, recipe, world, workers)
        val = features(model, views["val"], 1, recipe, world, workers)
        return cls(recipe, model, checkpoint, train, val, world, workers)

    def drop_last(self) -> bool:
        # A last batch with no image for some process cannot be trained on.
        train = self.recipe.train
        return train.drop_last or 0 < len(self.views) % train.batch < self.world.size

    def loss(self, batch: Any, fraction: float) -> Tensor:
        if isinstance(self.views, Features):
            embeddings, targets = (tensor.to(self.world.device) for tensor in batch)
            logits = self.wrapped(embeddings)
        else:
            images, superpixels, targets = to_device(batch, self.world.device)
            logits = self.wrapped(images, superpixels, self.views.count(superpixels))
        return F.cross_entropy(logits.float(), targets)

    def validate(self) -> dict[str, float]:
        if not self.checked:
            check_frozen(self.model, self.before, self.source)
            self.checked = True
        if isinstance(self.validation, Features):
            return self._validate_features(self.validation)
        batch = self.recipe.probe.eval_batch
        if self.batches is None:
            self.batches = evaluation_batches(self.validation, self.world, batch, self.workers)
        return accuracy(self.model, self.validation, self.world, batch, batches=self.batches)

    def _validate_features(self, validation: Features) -> dict[str, float]:
        head: Any = self.model.get_submodule("head")
        with torch.no_grad():
            logits = head(validation.embeddings[0].to(self.world.device)).cpu()
        targets = validation.labels
        hits = logits.topk(min(5, logits.shape[1]), 1).indices == targets[:, None]
        return {
            "top1": 100 * float(hits[:, 0].double().mean()),
            "top5": 100 * float(hits.any(1).double().mean()),
            "loss": float(F.cross_entropy(logits, targets)),
        }

    def checkpoint(self, epoch: int, outer: dict[str, Any]) -> dict[str, Any]:
        best = torch.tensor(float(outer["resume"]["best"].get("top1", 0.0)))
        return official_checkpoint(self.model, self.layout, epoch=epoch + 1, best_acc1=best, **outer)


def _is_head(key: str) -> bool:
    return key in ("head.weight", "head.bias")


def check_frozen(model: nn.Module, before: Mapping[str, Tensor], source: str) -> None:
    """Every tensor but the head, buffers included, must still be the pre-trained one, bit for bit.

    Raises:
        CheckpointError: naming what changed.
    """
    state = model.state_dict()
    changed = [key for key, value in before.items() if not torch.equal(state[key], value)]
    if changed:
        raise CheckpointError(
            f"The encoder changed: {len(changed)} tensors differ from {source}, first {changed[0]}.",
            remedy="probe from the file the run was started with, in a new --out folder",
        )


class Frozen(nn.Module):
    """The model as the loop calls it: `train()` does not reach it; one tensor in means embeddings."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)

    def forward(self, x: Tensor, superpixels: Tensor | None = None, count: int | None = None) -> Any:
        if superpixels is None:
            return self.model.get_submodule("head")(x)
        return self.model(x, superpixels, num_superpixels=count).logits
