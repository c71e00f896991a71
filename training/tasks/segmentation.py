"""Fine-tuning of a Segmenter on superpixels: starting weights, pixel cross entropy, mean IoU over sliding windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cast_sdk.errors import CheckpointError, RecipeError
from cast_sdk.models import create_model, load_model
from cast_sdk.models.checkpoints.layouts import official_checkpoint
from cast_sdk.models.dense import Segmenter
from cast_sdk.system.files import atomic_write
from cast_sdk.training.data.dense.base import DenseSplit
from cast_sdk.training.data.dense.opening import open_split
from cast_sdk.training.data.dense.transforms import DenseViews
from cast_sdk.training.data.transforms import normalise
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.models import load_fitting, set_dropout, start_file
from cast_sdk.training.engine.options import Run
from cast_sdk.training.engine.progress import progress
from cast_sdk.training.engine.recipe.settings import Recipe
from cast_sdk.training.engine.task import SHARED, Task
from cast_sdk.training.metrics import scores_file
from cast_sdk.training.metrics.dense_baselines import class_pixels
from cast_sdk.training.metrics.dense_pictures import blend, palette
from cast_sdk.training.tasks.dense import Inference, class_weights, evaluate, predict, superpixel_cross_entropy


class Segmentation(Task):
    """Task of segment.py."""

    program = "segment"
    layout = "segmenter"
    reads = SHARED | {
        "model.dropout",
        "model.init",
        "augment.flip",
        "dense",
        "superpixels.source",
        "train.sync_bn",
        "train.drop_last",
    }
    best_file = "best_checkpoint.pth"
    metric = "mean_iou"

    def __init__(
        self, recipe: Recipe, model: Segmenter, views: DenseViews, validation: DenseSplit, world: World
    ) -> None:
        super().__init__(recipe, model, views, world)
        self.views: DenseViews = views
        self.validation = validation
        self.weights: Tensor | None = None
        if recipe.dense.class_balance:
            pixels = class_pixels(views.split, range(len(views)))
            self.weights = class_weights(pixels, recipe.dense.class_balance).to(world.device)

    @classmethod
    def open(cls, recipe: Recipe, run: Run, world: World) -> Segmentation:
        train, val = (open_split(recipe.dense.data, run.data, name, run.on_bad_image) for name in ("train", "val"))
        model = build_segmenter(recipe, train).to(world.device)
        return cls(recipe, model, DenseViews(train, recipe), val, world)

    def drop_last(self) -> bool:
        # Several processes cannot share an incomplete batch, so there the last images of an epoch wait for the next.
        return self.recipe.train.drop_last or self.world.size > 1

    def loss(self, batch: Any, fraction: float) -> Tensor:
        images, superpixels, target = (part.to(self.world.device, non_blocking=True) for part in batch)
        scores = self.wrapped(normalise(images), superpixels, self.views.count()).dense
        return superpixel_cross_entropy(scores, superpixels, target, self.weights)

    def validate(self) -> dict[str, float]:
        config = self.recipe.dense
        inference = Inference(config, config.train_stride, source=self.recipe.superpixels.source)
        confusion = evaluate(self.model, self.validation, inference, self.world)
        return {
            "mean_iou": 100 * confusion.mean_iou(config.absent),
            "pixel_accuracy": 100 * confusion.pixel_accuracy,
            "mean_accuracy": 100 * confusion.mean_accuracy,
        }

    def checkpoint(self, epoch: int, outer: dict[str, Any]) -> dict[str, Any]:
        return official_checkpoint(self.model, self.layout, lr_scheduler={}, epoch=epoch, **outer)


def build_segmenter(recipe: Recipe, split: DenseSplit) -> Segmenter:
    """The recipe's Segmenter for the classes of a data set, its encoder from `model.init` if that is given."""
    options = {
        "num_classes": len(split.class_names),
        "class_names": split.class_names,
        "palette": split.palette,
        "image_size": recipe.dense.crop,
        "superpixels": recipe.superpixels.settings(),
        **recipe.model.options,
    }
    torch.manual_seed(recipe.train.seed)
    model = create_model(recipe.model.name, sampler=recipe.model.sampler, **options)
    if not isinstance(model, Segmenter):
        raise RecipeError(
            f"{recipe.model.name} is no Segmenter.",
            remedy="--set model.name=segmenter_cast_small",
        )
    if recipe.model.init:
        load_start(model, recipe.model.init)
    set_dropout(model, recipe.model.dropout)
    # The encoder's norm and classifier do not reach the output; DDP wants a gradient for all the rest.
    model.encoder.norm.requires_grad_(False)
    model.encoder.head.requires_grad_(False)
    return model.train()


def load_start(model: Segmenter, path: str) -> None:
    """Fill a Segmenter from a checkpoint.

    From a Segmenter for the same number of classes: everything. From a classification model: the encoder, while block
    fusion and decoder stay random.

    Args:
        path: checkpoint of a Segmenter, cast_deit or cast model of the same sizes, or "bundled". The fixed positions
            of a `cast` become the start of learned ones.

    Raises:
        RecipeError: when sizes differ.
        CheckpointError: when the file cannot be opened.
    """
    source = load_model(start_file(path))
    prefix = "encoder."
    theirs = source.state_dict()
    if isinstance(source, Segmenter):
        if source.spec.num_classes != model.spec.num_classes:
            theirs = {key: value for key, value in theirs.items() if key.startswith(prefix)}
    else:
        if "pe_token" in theirs:
            theirs["pos_embed"] = torch.cat([theirs.pop("pe_token"), theirs["pos_embed"]], 1)
        theirs = {prefix + key: value for key, value in theirs.items()}
    ours = model.state_dict()
    fresh = ("encoder.head.", "encoder.block_fusion.", "decoder.")
    wanted = [key for key in ours if not key.startswith(fresh) or key in theirs]
    wanted = [key for key in wanted if not key.startswith("encoder.head.")]
    remedy = "set model.options (embed_dim, depths, num_heads, position_grid) to those of the checkpoint"
    load_fitting(model, theirs, path, remedy, wanted)


def check_classes(model: Any, split: DenseSplit, path: Path) -> None:
    """Raises CheckpointError unless the model is a Segmenter with as many classes as the data set."""
    if model.spec.family != "segmenter" or model.spec.num_classes != len(split.class_names):
        raise CheckpointError(
            f"{path} is no Segmenter with {len(split.class_names)} classes.",
            found=f"{model.spec.family} with {model.spec.num_classes}",
            remedy="give the recipe and data of the checkpoint",
        )


def write_images(model: Segmenter, split: DenseSplit, inference: Inference, folder: Path) -> None:
    """`pred/<name>.png` with class indices and a palette, `overlay/<name>.jpg` with photograph, truth, prediction."""
    scores_file.mark(folder)
    for name in ("pred", "overlay"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    colours = palette(split)
    for index, pair in enumerate(progress(split.pairs, "drawing")):
        image, label = split.read(index)
        classes = predict(model, image, inference)
        indexed = Image.fromarray(classes)
        indexed.putpalette(colours.ravel().tolist())
        with atomic_write(folder / "pred" / f"{pair.name}.png") as temporary:
            indexed.save(temporary, format="PNG")
        page = np.concatenate([image, blend(image, label, colours), blend(image, classes, colours)], 1)
        with atomic_write(folder / "overlay" / f"{pair.name}.jpg") as temporary:
            temporary.write_bytes(cv2.imencode(".jpg", page[..., ::-1])[1].tobytes())
