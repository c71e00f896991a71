"""PASCAL VOC by softmax fine-tuning of the MoCo segmentation backbone: pixel cross entropy, mean IoU over val."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cast_sdk.errors import CheckpointError, RecipeError
from cast_sdk.models import create_model, load_model
from cast_sdk.models.dense import Spml
from cast_sdk.spec import SuperpixelSettings
from cast_sdk.superpixels import seeds_count, superpixels_for
from cast_sdk.training.data.dense.base import IGNORE, DenseSplit
from cast_sdk.training.data.dense.opening import open_split
from cast_sdk.training.data.dense.transforms import DenseViews
from cast_sdk.training.data.sampler import Key
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.models import load_fitting
from cast_sdk.training.engine.optim import trainable
from cast_sdk.training.engine.options import Run
from cast_sdk.training.engine.recipe.settings import Recipe
from cast_sdk.training.engine.task import SHARED, Task
from cast_sdk.training.metrics.semantic import ConfusionMatrix
from cast_sdk.training.tasks.voc_prediction import (
    MEAN,
    STD,
    Pixels,
    nearest_resize,
    predict_split,
    prepare,
    voc_superpixels,
)


class Finetuning(Task):
    """Task of voc.py."""

    program = "voc"
    layout = "spml"
    reads = (SHARED - {"optimizer"}) | {
        "model.init",
        "augment.flip",
        "dense.scale",
        "dense.crop",
        "optimizer.lr",
        "optimizer.momentum",
        "optimizer.weight_decay",
        "optimizer.clip",
        "train.sync_bn",
    }
    fixed: ClassVar[Mapping[str, Any]] = {
        "optimizer.name": "sgd",
        "dense.data": "voc",
        "dense.category_cap": 1.0,
        "dense.photometric": False,
        "dense.absent": "zero",
    }
    metric = "mean_iou"

    def __init__(self, recipe: Recipe, model: Spml, views: VocViews, validation: DenseSplit, world: World) -> None:
        for name, parameter in model.named_parameters():
            if not name.endswith(("weight", "bias")):
                parameter.requires_grad_(False)  # the class token: in no parameter group
        super().__init__(recipe, model, views, world, called=PixelLoss(model))
        self.model: Spml = model
        self.views: VocViews = views
        self.validation = validation

    @classmethod
    def open(cls, recipe: Recipe, run: Run, world: World) -> Finetuning:
        train, val = (open_split("voc", run.data, name, run.on_bad_image) for name in ("train", "val"))
        return cls(recipe, build_spml(recipe, train).to(world.device), VocViews(train, recipe), val, world)

    def optimizer(self) -> torch.optim.Optimizer:
        config = self.recipe.optimizer
        groups = parameter_groups(self.model, config.lr, config.weight_decay)
        return RateInBufferSGD(groups, config.lr, config.momentum)

    def loss(self, batch: Any, fraction: float) -> Tensor:
        image, superpixels, target = (part.to(self.world.device, non_blocking=True) for part in batch)
        return self.wrapped(image, superpixels, target, self.views.count())

    def validate(self) -> dict[str, float]:
        confusion = score(self.model, self.validation, world=self.world)
        return {"mean_iou": 100 * confusion.mean_iou("zero"), "pixel_accuracy": 100 * confusion.pixel_accuracy}

    def files(self, epoch: int, is_best: bool, fraction: float) -> list[str]:
        steps = self.recipe.schedule.steps
        return [f"model-{steps - 1}.pth" if steps else "model.pth"] if fraction >= 1 else []

    def restore(self, raw: dict[str, Any]) -> None:
        self.model.load_state_dict({**raw["embedding_model"], **raw["prediction_model"]})


def build_spml(recipe: Recipe, split: DenseSplit) -> Spml:
    """Backbone with a softmax pixel classifier; the backbone from the MoCo checkpoint `model.init` when given."""
    torch.manual_seed(recipe.train.seed)
    model = create_model(
        recipe.model.name,
        sampler=recipe.model.sampler,
        num_classes=len(split.class_names),
        class_names=split.class_names,
        palette=split.palette,
        superpixels=recipe.superpixels.settings(),
        **recipe.model.options,
    )
    if not isinstance(model, Spml) or model.semantic_classifier is None:
        raise RecipeError(
            f"{recipe.model.name} is no spml model with a classifier.", remedy="--set model.name=spml_cast_small"
        )
    if recipe.model.init:
        start = load_model(recipe.model.init, stage="segmentation", num_classes=0).state_dict()
        remedy = "give a MoCo checkpoint of cast_seg_small, or set model.options to its sizes"
        load_fitting(model.vit_backbone, start, recipe.model.init, remedy)
    return model.train()


class PixelLoss(nn.Module):
    """Model and loss as one module, so that DDP sees the whole forward pass."""

    def __init__(self, model: Spml) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, superpixels: Tensor, target: Tensor, count: int) -> Tensor:
        """Cross entropy of the pixel classifier: logits at the label map's resolution, resized to the target's.

        Args:
            image: normalised [N,3,H,W].
            superpixels: [N,h,w], labels below `count`.
            target: [N,H,W], labels beyond the classes do not count.
        """
        embeddings, _ = self.model.pixel_embeddings(image, superpixels, count)
        assert self.model.semantic_classifier is not None
        return resized_cross_entropy(self.model.semantic_classifier(embeddings), target)


def resized_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy of bilinearly resized logits [N,classes,h,w]; labels beyond the classes are left out."""
    logits = F.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    target = target.long()
    return F.cross_entropy(logits, torch.where(target >= logits.shape[1], IGNORE, target), ignore_index=IGNORE)


def parameter_groups(model: Spml, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Weights, biases (twice the rate, no decay), classifier weights (10 times) and biases (20 times, no decay).

    Tensors whose name ends in neither, that is the class token, are not trained.
    """
    groups: list[dict[str, Any]] = []
    for prefix, factor in (("vit_backbone.", 1.0), ("semantic_classifier.", 10.0)):
        for kind, scale, decay in (("weight", 1.0, weight_decay), ("bias", 2.0, 0.0)):
            tensors = [p for name, p in trainable(model) if name.startswith(prefix) and name.endswith(kind)]
            rate = lr * factor * scale
            groups.append({"params": tensors, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return groups


class RateInBufferSGD(torch.optim.Optimizer):
    """SGD whose momentum buffer holds steps, not gradients: v = momentum * v + lr * (g + decay * p); p = p - v."""

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "step" not in state:
                    state["step"] = torch.zeros_like(parameter)
                slope = parameter.grad.add(parameter, alpha=group["weight_decay"])
                state["step"].mul_(group["momentum"]).add_(slope, alpha=group["lr"])
                parameter.sub_(state["step"])
        return loss


class VocViews(DenseViews):
    """Training items: normalised float32 [3,H,W], superpixels int32 [H/2,W/2] and class map uint8 [H,W].

    Flip, random scale, padding with the mean colour, random crop; SEEDS on the halved crop. Items depend on (seed,
    epoch, position) alone.
    """

    def count(self) -> int:
        """Superpixels S of an item."""
        return seeds_count(self.config.crop // 2, self.config.crop // 2, self.settings.count)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, Tensor]:
        index, epoch, position = key
        generator = np.random.default_rng((self.seed, epoch, position))
        pixels, label = self.split.read(index)
        image = pixels.astype(np.float32) / np.float32(255)
        if generator.random() < self.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        image, label = self._crop(np.ascontiguousarray(image), np.ascontiguousarray(label), generator)
        superpixels = half_superpixels((image * 255).astype(np.uint8), self.settings)
        normalised = torch.from_numpy((image - MEAN) / STD).permute(2, 0, 1)
        return normalised, torch.from_numpy(superpixels), torch.from_numpy(label)

    def _crop(
        self, image: npt.NDArray[np.float32], label: Pixels, generator: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], Pixels]:
        side = self.config.crop
        factor = generator.uniform(*self.config.scale)
        height, width = int(label.shape[0] * factor), int(label.shape[1] * factor)
        image = cast("npt.NDArray[np.float32]", cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
        label = nearest_resize(label, (height, width))
        padded = np.empty((max(height, side), max(width, side), 3), np.float32)
        padded[:] = MEAN
        classes = np.full(padded.shape[:2], IGNORE, np.uint8)
        padded[:height, :width], classes[:height, :width] = image, label
        top = int(generator.integers(padded.shape[0] - side + 1))
        left = int(generator.integers(padded.shape[1] - side + 1))
        area = slice(top, top + side), slice(left, left + side)
        return np.ascontiguousarray(padded[area]), np.ascontiguousarray(classes[area])


def half_superpixels(image: Pixels, settings: SuperpixelSettings) -> npt.NDArray[np.int32]:
    """Superpixels int32 [H/2, W/2] of a crop uint8 [H, W, 3]: its bytes are halved, as the published program does."""
    size = image.shape[1] // 2, image.shape[0] // 2
    half = cast("Pixels", cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))
    return superpixels_for(half, settings)


@torch.inference_mode()
def predict(model: nn.Module, image: Pixels, settings: SuperpixelSettings) -> Pixels:
    """Class map uint8 [h, w] of the fine-tuned model at the native size."""
    prepared = prepare(image, settings)
    device = next(model.parameters()).device
    superpixels = prepared.superpixels.to(device)
    scores = model(prepared.image.to(device), superpixels, prepared.count).dense[0]
    classes = scores.argmax(1).to(torch.uint8)[superpixels[0].long()].cpu().numpy()
    return nearest_resize(classes, (image.shape[0], image.shape[1]))


def score(model: Any, split: DenseSplit, out: Path | None = None, world: World | None = None) -> ConfusionMatrix:
    """Confusion matrix of a fine-tuned model over all processes; class maps are written when `out` is given."""
    mode = model.training
    model.eval()
    confusion = predict_split(lambda image: predict(model, image, voc_superpixels()), split, out, world)
    model.train(mode)
    return confusion


def load_finetuned(path: Path, split: DenseSplit) -> Spml:
    """A fine-tuned checkpoint for the classes of a split.

    Raises:
        CheckpointError: when the file holds another model.
    """
    model: Any = load_model(path, sampler="matrix")
    if model.spec.family != "spml" or model.spec.num_classes != len(split.class_names):
        raise CheckpointError(
            f"{path} is no fine-tuned VOC checkpoint.",
            found=f"{model.spec.family} with {model.spec.num_classes} classes",
            remedy="train one: python training/voc.py finetune --recipe voc_finetune_cast_small ...",
        )
    return model
