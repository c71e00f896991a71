"""Classification from labels, of one level or along a taxonomy: mixup, averaged weights, accuracies.

Options that no published recipe uses: a teacher's soft labels, also of images without labels, and a loss on the
levels.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cast_sdk.errors import RecipeError
from cast_sdk.models.base import Model
from cast_sdk.models.checkpoints.layouts import official_checkpoint, official_state
from cast_sdk.training.data.balance import BalancedSampler, draw_weights
from cast_sdk.training.data.dataset import Images, LabelledViews, to_device
from cast_sdk.training.data.region_views import RegionViews
from cast_sdk.training.data.sampler import EpochSampler
from cast_sdk.training.data.teacher.others import OtherViews
from cast_sdk.training.data.teacher.soft_labels import soft_cross_entropy, teacher_scores
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.ema import Ema
from cast_sdk.training.engine.launch import open_images
from cast_sdk.training.engine.models import create, set_clusters
from cast_sdk.training.engine.options import Run
from cast_sdk.training.engine.recipe.settings import Phase, Recipe
from cast_sdk.training.engine.task import SHARED, Task
from cast_sdk.training.metrics.accuracy import accuracy, evaluation_batches
from cast_sdk.training.tasks.further_classes import FurtherClasses
from cast_sdk.training.tasks.levels import level_loss
from cast_sdk.training.tasks.probe_start import start_head
from cast_sdk.training.tasks.taxonomy import TaxonomyLoss


class Classification(Task):
    """Task of supervised.py."""

    program = "supervised"
    layout = "deit"
    reads = SHARED | {
        "model",
        "superpixels.source",
        "augment",
        "train.sync_bn",
        "train.ema",
        "train.ema_aliases",
        "train.label_smoothing",
        "train.channels_last",
        "train.class_balance",
        "teacher",
        "levels",
        "phases",
        "taxonomy",
    }
    best_file = "best_checkpoint.pth"
    metric = "top1"

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        views: LabelledViews,
        validation: LabelledViews,
        world: World,
        workers: int = 0,
        regions: RegionViews | None = None,
        others: OtherViews | None = None,
    ) -> None:
        self.further = FurtherClasses(model, others.further).to(world.device) if others else None
        super().__init__(recipe, model, views, world, called=self.further)
        self.views: LabelledViews = views
        self.validation, self.workers, self.regions, self.others = validation, workers, regions, others
        self.batches: DataLoader[Any] | None = None  # of the validation; made when it is first needed
        settings = recipe.train
        self.ema = Ema(model, settings.ema, settings.ema_aliases) if settings.ema else None
        taxonomy = model.spec.taxonomy
        self.tree = None
        if taxonomy:
            self.tree = TaxonomyLoss(taxonomy, settings.label_smoothing, recipe.taxonomy.kl_weight)
        self.mix = self._mixup(model.spec.num_classes, 0.0 if taxonomy else settings.label_smoothing)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.0 if self.mix else settings.label_smoothing)

    @classmethod
    def open(cls, recipe: Recipe, run: Run, world: World) -> Classification:
        images = open_images(run, ("train", "val"), world)
        fresh = cls.begins_anew(run.options.out, world)
        return cls.build(recipe, images, world, run.options.workers, fresh=fresh)

    @classmethod
    def build(
        cls, recipe: Recipe, images: Mapping[str, Images], world: World, workers: int = 0, *, fresh: bool = True
    ) -> Classification:
        """The task on the splits "train" and "val"; what the recipe's teacher and levels need lies beside them.

        A run that is not `fresh` gets its head from its checkpoint, so none is fitted.
        """
        source = images["train"].source
        model = create(recipe, source.classes).to(world.device)
        scores = teacher_scores(source.root, source) if recipe.teacher.weight else None
        if recipe.model.head_start == "probe" and fresh:
            as_judged = LabelledViews(images["train"], recipe, train=False)
            start_head(model, as_judged, world, balance_of(recipe, images["train"]))
        train = LabelledViews(images["train"], recipe, train=True, scores=scores)
        validation = LabelledViews(images["val"], recipe, train=False)
        regions = RegionViews(source.root, recipe) if recipe.levels.weight else None
        others = None
        if recipe.teacher.others:
            others = OtherViews(source.root, recipe, len(source.classes), images["train"].on_bad)
        return cls(recipe, model, train, validation, world, workers, regions, others)

    def trained(self) -> nn.Module:
        return self.further or self.model

    def sampler(self) -> EpochSampler:
        weights = balance_of(self.recipe, self.views.images)
        plain = super().sampler()
        if weights is None:
            return plain
        return BalancedSampler(
            weights, plain.batch, seed=plain.seed, rank=plain.rank, world=plain.world, drop_last=plain.drop_last
        )

    def _mixup(self, classes: int, smoothing: float) -> Any:
        augment = self.recipe.augment
        if not (augment.mixup or augment.cutmix):
            return None
        from timm.data import Mixup

        batch = self.world.per_process(self.recipe.train.batch, self.recipe.train.accumulation)
        if batch % 2:
            raise RecipeError(
                "Images are mixed in pairs, and a step of one process has an odd number of them.",
                found=f"{batch} images, augment.mixup {augment.mixup}, augment.cutmix {augment.cutmix}",
                remedy="make train.batch even, or --set augment.mixup=0 --set augment.cutmix=0",
            )
        return Mixup(
            augment.mixup,
            augment.cutmix,
            prob=1.0,
            switch_prob=augment.mix_switch,
            mode="batch",
            label_smoothing=smoothing,
            num_classes=classes,
        )

    def loss(self, batch: Any, fraction: float) -> Tensor:
        channels_last, levels = self.recipe.train.channels_last, self.recipe.levels
        images, superpixels, targets = to_device(batch[:3], self.world.device, channels_last)
        if self.mix is not None:  # superpixels stay those of the unmixed images
            images, targets = self.mix(images, targets)
        labelled = len(images)
        known = self.regions.batch(levels.batch) if self.regions else None
        others = self.others.batch(self.recipe.teacher.others) if self.others else None
        for more in (others, known):  # one pass for all kinds of images
            if more is not None:
                extra = to_device((more.images, more.superpixels, targets), self.world.device, channels_last)
                images, superpixels = torch.cat([images, extra[0]]), torch.cat([superpixels, extra[1]])
        output = self.wrapped(images, superpixels, num_superpixels=self.views.count(superpixels))
        output, further = output if self.further else (output, None)
        if self.tree is not None:
            loss: Tensor = self.tree([scores[:labelled] for scores in output.taxonomy], targets)
        else:
            loss = self._class_loss(output.logits[:labelled].float(), targets, *batch[3:])
        if others is not None and further is not None:
            logits = torch.cat([output.logits, further], 1)[labelled : labelled + len(others.scores)]
            loss = self._with_others(loss, labelled, logits.float(), others.scores)
        if known is not None:
            shares = [share.to(self.world.device) for share in known.shares]
            own = [level.rows(len(images) - len(known)) for level in output.levels]
            loss = loss + levels.weight * level_loss(own, shares, levels.tokens)
        return loss

    def _class_loss(self, logits: Tensor, targets: Tensor, scores: Tensor | None = None) -> Tensor:
        """Cross entropy with the labels, mixed with that of a teacher's `scores` [N,classes]."""
        loss: Tensor = self.criterion(logits, targets)
        if scores is None:
            return loss
        teacher = self.recipe.teacher
        soft = soft_cross_entropy(logits, scores.to(logits.device), teacher.temperature)
        return (1 - teacher.weight) * loss + teacher.weight * soft

    def _with_others(self, loss: Tensor, labelled: int, logits: Tensor, scores: Tensor) -> Tensor:
        """Mean over all images of the `loss` of the labelled ones and that of the others, which have no labels."""
        teacher, own = self.recipe.teacher, self.model.spec.num_classes
        scores = scores.to(logits.device)
        soft = soft_cross_entropy(logits, scores, teacher.temperature)
        if teacher.others_own:
            nearest = soft_cross_entropy(logits[:, :own], scores[:, :own], teacher.temperature)
            soft = soft + teacher.others_own * nearest
        return (labelled * loss + len(scores) * soft) / (labelled + len(scores))

    def after_step(self, fraction: float) -> None:
        if self.ema is not None:
            self.ema.update()

    def enter_phase(self, phase: Phase) -> None:
        if phase.clusters:
            for model in (self.model, *([self.ema.model] if self.ema else [])):
                set_clusters(model, phase.clusters)
        if phase.superpixels:
            self.views.set_count(phase.superpixels)
            self.validation.set_count(phase.superpixels)
            for more in (self.regions, self.others):
                if more is not None:
                    more.set_count(phase.superpixels)

    def validate(self) -> dict[str, float]:
        batch = max(1, self.recipe.train.batch // self.world.size)
        if self.batches is None:
            self.batches = evaluation_batches(self.validation, self.world, batch, self.workers)

        def measured(model: nn.Module) -> dict[str, float]:
            precision = self.recipe.train.precision
            return accuracy(model, self.validation, self.world, batch, precision=precision, batches=self.batches)

        metrics = measured(self.model)
        if self.ema is not None:
            metrics |= {f"ema_{name}": value for name, value in measured(self.ema.model).items()}
        return metrics

    def checkpoint(self, epoch: int, outer: dict[str, Any]) -> dict[str, Any]:
        average = {"model_ema": official_state(self.ema.model, "deit")} if self.ema else {}
        arguments = argparse.Namespace(recipe=self.recipe.name, seed=self.recipe.train.seed)
        if self.further:
            outer = {"further": self.further.further.state_dict(), **outer}
        scheduler = {"t_in_epochs": True, "epoch": epoch}
        return official_checkpoint(
            self.model, self.layout, **average, lr_scheduler=scheduler, epoch=epoch, args=arguments, **outer
        )

    def restore(self, raw: dict[str, Any]) -> None:
        super().restore(raw)
        if self.ema is not None:
            self.ema.model.load_state_dict(raw["model_ema"])
        if self.further is not None:
            self.further.further.load_state_dict(raw["further"])


def balance_of(recipe: Recipe, images: Images) -> npt.NDArray[np.float64] | None:
    """How often each image is drawn, from `train.class_balance`; None: all alike.

    Raises:
        RecipeError: for a balance beside repeated augmentation.
    """
    power = recipe.train.class_balance
    if not power:
        return None
    if recipe.augment.repeats > 1:
        raise RecipeError(
            "Classes are not balanced beside repeated augmentation.",
            found=f"train.class_balance {power}, augment.repeats {recipe.augment.repeats}",
            remedy="--set augment.repeats=1",
        )
    return draw_weights(images.source.labels, power)
