"""Fine-tune a Segmenter on superpixels and evaluate it over sliding windows: ADE20K, Pascal Context, CamVid.

    python training/segment.py train --recipe camvid_cast_tiny --data CamVid --out runs/camvid
    torchrun --nproc-per-node 8 training/segment.py train --recipe ade20k_cast_small --data ADEChallengeData2016 \\
        --set model.init=deit_cast_small.pth --eval-every 2 --out runs/ade20k
    python training/segment.py evaluate --recipe ade20k_cast_small --data ADEChallengeData2016 \\
        --ckpt runs/ade20k/checkpoint.pth --out runs/ade20k/eval [--multi-scale] [--save-images]

The same training command continues an interrupted run. Writes OUT/checkpoint.pth and best_checkpoint.pth (Segmenter's
layout), log.jsonl and tensorboard/; evaluation writes scores_ss.json or scores_ms.json and, on request, images/.
`python -m cast_sdk.training.segment` is the same program.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.training.engine import options

if TYPE_CHECKING:
    from torch import Tensor

    from cast_sdk.models.dense import Segmenter
    from cast_sdk.training.data.dense.base import DenseSplit
    from cast_sdk.training.data.dense.transforms import DenseViews, Pixels
    from cast_sdk.training.engine.distributed import World
    from cast_sdk.training.engine.loop import Options
    from cast_sdk.training.engine.recipe import Phase, Recipe

_SPLIT_HELP = "The data set's folder in its official layout (prepare_data.py checks it)."


@click.group(help=(__doc__ or "").partition("\n")[0])
def main() -> None:
    pass


@main.command("train", help="Fine-tune by a recipe.")
@options.run_options(_SPLIT_HELP, cache=False)
def train_command(
    recipe: str,
    data: Path,
    out: Path,
    overrides: tuple[str, ...],
    device: str,
    workers: int,
    on_bad_image: Any,
    eval_every: int,
    log_every: int,
    save_minutes: float,
    allow_world_size: bool,
) -> None:
    from cast_sdk.training.data.dense.opening import open_split
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.engine.loop import Options
    from cast_sdk.training.engine.recipe import load_recipe

    with errors_for_people():
        settings = load_recipe(recipe, overrides, "segment")
        splits = {name: open_split(settings.dense.data, data, name, on_bad_image) for name in ("train", "val")}
        world = start(device)
        train(settings, splits, world, Options(out, log_every, eval_every, save_minutes, allow_world_size), workers)
        world.finish()


@main.command("evaluate", help="Mean IoU of a checkpoint over sliding windows.")
@click.option("--recipe", required=True, help="Recipe that the checkpoint was trained by.")
@options.data(_SPLIT_HELP)
@click.option("--ckpt", required=True, type=click.Path(path_type=Path), help="Segmenter checkpoint.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for scores and images.")
@options.overrides
@click.option("--split", default="val", show_default=True)
@click.option("--stride", type=int, help="Window stride in pixels [default: the recipe's dense.stride].")
@click.option("--multi-scale", is_flag=True, help="Six scales, each with its mirror image.")
@click.option("--save-images", is_flag=True, help="Write class maps (palette PNG) and overlays.")
@options.device
@click.option("--window-batch", default=4, show_default=True, help="Windows per forward pass.")
@options.on_bad_image
def evaluate_command(
    recipe: str,
    data: Path,
    ckpt: Path,
    out: Path,
    overrides: tuple[str, ...],
    split: str,
    stride: int | None,
    multi_scale: bool,
    save_images: bool,
    device: str,
    window_batch: int,
    on_bad_image: Any,
) -> None:
    from cast_sdk.artifact import atomic_write
    from cast_sdk.models import load_model
    from cast_sdk.training.data.dense.opening import open_split
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.engine.recipe import load_recipe
    from cast_sdk.training.tasks.dense import MULTI_SCALE, Inference, evaluate

    with errors_for_people():
        settings = load_recipe(recipe, overrides, "segment")
        pairs = open_split(settings.dense.data, data, split, on_bad_image)
        world = start(device)
        model: Any = load_model(ckpt, sampler=settings.model.sampler).to(world.device)
        check_classes(model, pairs, ckpt)
        ratios, flips = (MULTI_SCALE, (False, True)) if multi_scale else ((1.0,), (False,))
        how = Inference(settings.dense, stride or settings.dense.stride, ratios, flips, window_batch)
        out.mkdir(parents=True, exist_ok=True)
        confusion = evaluate(model, pairs, how, world)
        scores = confusion.to_dict()
        if world.main:
            named = {**scores, "iou": dict(zip(pairs.class_names, scores["iou"], strict=True))}
            with atomic_write(out / f"scores_{'ms' if multi_scale else 'ss'}.json") as temporary:
                temporary.write_text(json.dumps({"stride": how.stride, **named}, indent=1))
            print(f"{pairs_text(scores)} over {scores['images']} images")
            if save_images:
                write_images(model, pairs, how, out / "images")
        world.finish()


@main.command("baselines", help="What a model must beat, and what superpixels allow at best.")
@click.option("--recipe", required=True, help="Recipe whose data set and superpixels to use.")
@options.data(_SPLIT_HELP)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for baselines.json.")
@click.option("--every", default=1, show_default=True, help="Use every N-th training image.")
def baselines_command(recipe: str, data: Path, out: Path, every: int) -> None:
    import dataclasses

    from cast_sdk.artifact import atomic_write
    from cast_sdk.training.data.dense.opening import open_split
    from cast_sdk.training.data.transforms import settings
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.engine.recipe import load_recipe
    from cast_sdk.training.metrics.dense_baselines import majority_class, superpixel_colour, superpixel_oracle

    with errors_for_people():
        chosen = load_recipe(recipe, (), "segment")
        train, val = (open_split(chosen.dense.data, data, name) for name in ("train", "val"))
        height, width = val.read(0)[0].shape[:2]
        # As dense as the model's: its count belongs to one crop.
        count = chosen.superpixels.count * height * width // chosen.dense.crop**2
        superpixels = dataclasses.replace(settings(chosen.superpixels), count=count)
        results = {
            "majority class": majority_class(train, val, every),
            "superpixel colour": superpixel_colour(train, val, superpixels, False, every),
            "superpixel colour and position": superpixel_colour(train, val, superpixels, True, every),
            "true class of every superpixel": superpixel_oracle(val, superpixels),
        }
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(out / "baselines.json") as temporary:
            temporary.write_text(json.dumps({name: result.to_dict() for name, result in results.items()}, indent=1))
        for name, result in results.items():
            print(f"{name}: {pairs_text(result.to_dict())}")


@main.command("pictures", help="Draw a run's curve, and some images with truth and prediction.")
@click.option("--recipe", required=True, help="Recipe of the run.")
@options.data(_SPLIT_HELP)
@click.option("--run", "run", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--baselines", type=click.Path(path_type=Path), help="baselines.json to draw as lines.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for RECIPE_curve.png and RECIPE_examples.jpg."
)
@click.option("--images", default=3, show_default=True, help="Validation images, evenly spaced.")
def pictures_command(recipe: str, data: Path, run: Path, baselines: Path | None, out: Path, images: int) -> None:
    from cast_sdk.models import load_model
    from cast_sdk.training.data.dense.opening import open_split
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.engine.recipe import load_recipe
    from cast_sdk.training.metrics.dense_pictures import draw_curve, draw_examples
    from cast_sdk.training.tasks.dense import Inference, predict

    with errors_for_people():
        settings = load_recipe(recipe, (), "segment")
        split = open_split(settings.dense.data, data, "val")
        model: Any = load_model(run / "best_checkpoint.pth", sampler=settings.model.sampler)
        check_classes(model, split, run / "best_checkpoint.pth")
        out.mkdir(parents=True, exist_ok=True)
        draw_curve(run, out / f"{settings.name}_curve.png", baselines)
        how = Inference(settings.dense, settings.dense.stride)
        pairs = [split.read(len(split) * index // images) for index in range(images)]
        examples = [(image, label, predict(model, image, how)) for image, label in pairs]
        draw_examples(examples, split, palette(split), out / f"{settings.name}_examples.jpg")
        print(f"wrote {settings.name}_curve.png and {settings.name}_examples.jpg to {out}")


def train(
    recipe: Recipe, splits: dict[str, DenseSplit], world: World, options: Options, workers: int = 0
) -> dict[str, float]:
    """Run a segmentation recipe on the splits "train" and "val"; returns the best validation metrics."""
    from cast_sdk.training.data.dataset import loader
    from cast_sdk.training.data.dense.transforms import DenseViews
    from cast_sdk.training.data.sampler import EpochSampler
    from cast_sdk.training.engine.loop import Loop
    from cast_sdk.training.engine.optim import build_optimizer
    from cast_sdk.training.engine.schedules import scaled_lr
    from cast_sdk.training.tasks.dense import build_segmenter

    settings = recipe.train
    batch = world.per_process(settings.batch, settings.accumulation)
    views = DenseViews(splits["train"], recipe)
    # Several processes cannot share an incomplete batch, so there the last images of an epoch wait for the next.
    drop_last = settings.drop_last or world.size > 1
    sampler = EpochSampler(
        len(views), batch, seed=settings.seed, drop_last=drop_last, rank=world.rank, world=world.size
    )
    model = build_segmenter(recipe, splits["train"]).to(world.device)
    lr = scaled_lr(recipe.optimizer.lr, settings.batch, recipe.optimizer.reference_batch)
    optimizer = build_optimizer(model, recipe.optimizer, lr)
    task = Segmentation(recipe, model, views, splits["val"], world)
    batches = loader(views, sampler, workers, pin=world.device.type == "cuda")
    return Loop(task, recipe, sampler, batches, optimizer, world, options).run()


class Segmentation:
    """Task of the loop: pixel cross entropy, mean IoU over sliding windows."""

    def __init__(
        self, recipe: Recipe, model: Segmenter, views: DenseViews, validation: DenseSplit, world: World
    ) -> None:
        self.recipe, self.model, self.views, self.validation, self.world = recipe, model, views, validation, world
        self.wrapped = world.wrap(model, recipe.train.sync_bn)
        self.weights: Tensor | None = None
        if recipe.dense.class_balance:
            from cast_sdk.training.metrics.dense_baselines import class_pixels
            from cast_sdk.training.tasks.dense import class_weights

            pixels = class_pixels(views.split, range(len(views)))
            self.weights = class_weights(pixels, recipe.dense.class_balance).to(world.device)

    def loss(self, batch: Any) -> Tensor:
        from cast_sdk.training.data.transforms import normalise
        from cast_sdk.training.tasks.dense import superpixel_cross_entropy

        images, superpixels, target = (part.to(self.world.device, non_blocking=True) for part in batch)
        scores = self.wrapped(normalise(images), superpixels, self.views.count()).dense
        return superpixel_cross_entropy(scores, superpixels, target, self.weights)

    def after_step(self, fraction: float) -> None:
        pass

    def enter_phase(self, phase: Phase) -> None:
        pass

    def validate(self) -> dict[str, float]:
        from cast_sdk.training.tasks.dense import Inference, evaluate

        config = self.recipe.dense
        confusion = evaluate(self.model, self.validation, Inference(config, config.train_stride), self.world)
        return {
            "mean_iou": 100 * confusion.mean_iou(config.absent),
            "pixel_accuracy": 100 * confusion.pixel_accuracy,
            "mean_accuracy": 100 * confusion.mean_accuracy,
        }

    def better(self, new: dict[str, float], best: dict[str, float]) -> bool:
        return new["mean_iou"] > best.get("mean_iou", -1.0)

    def files(self, epoch: int, is_best: bool) -> list[str]:
        return ["best_checkpoint.pth"] if is_best else []

    def checkpoint(self, epoch: int, outer: dict[str, Any]) -> dict[str, Any]:
        from cast_sdk.models.checkpoints import official_checkpoint

        return official_checkpoint(self.model, "segmenter", lr_scheduler={}, epoch=epoch, **outer)

    def restore(self, raw: dict[str, Any]) -> None:
        self.model.load_state_dict(raw["model"])


def check_classes(model: Any, split: DenseSplit, path: Path) -> None:
    """Raises CheckpointError unless the model is a Segmenter with as many classes as the data set."""
    from cast_sdk.errors import CheckpointError

    if model.spec.family != "segmenter" or model.spec.num_classes != len(split.class_names):
        raise CheckpointError(
            f"The checkpoint is a Segmenter with {len(split.class_names)} classes.",
            found=f"{path}: {model.spec.family} with {model.spec.num_classes}",
            remedy="give the recipe and data of the checkpoint",
        )


def pairs_text(scores: dict[str, Any]) -> str:
    return ", ".join(f"{name} {scores[name]}" for name in ("mean_iou", "pixel_accuracy", "mean_accuracy"))


def write_images(model: Any, split: DenseSplit, how: Any, folder: Path) -> None:
    """`pred/<name>.png` with class indices and a palette, `overlay/<name>.jpg` with photograph, truth, prediction."""
    import cv2
    import numpy as np
    from PIL import Image

    from cast_sdk.artifact import atomic_write
    from cast_sdk.training.engine.progress import progress
    from cast_sdk.training.tasks.dense import predict

    for name in ("pred", "overlay"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    colours = palette(split)
    for index, pair in enumerate(progress(split.pairs, "drawing")):
        image, label = split.read(index)
        classes = predict(model, image, how)
        indexed = Image.fromarray(classes)
        indexed.putpalette(colours.ravel().tolist())
        with atomic_write(folder / "pred" / f"{pair.name}.png") as temporary:
            indexed.save(temporary, format="PNG")
        page = np.concatenate([image, blend(image, label, colours), blend(image, classes, colours)], 1)
        with atomic_write(folder / "overlay" / f"{pair.name}.jpg") as temporary:
            temporary.write_bytes(cv2.imencode(".jpg", page[..., ::-1])[1].tobytes())


def palette(split: DenseSplit) -> Pixels:
    """RGB per class value 0..255; black for 255."""
    import numpy as np

    from cast_sdk.runtime.output.colours import class_colours

    colours = np.zeros((256, 3), np.uint8)
    count = len(split.class_names)
    colours[:count] = np.array(split.palette, np.uint8) if split.palette else class_colours(count)[:, ::-1]
    return colours


def blend(image: Pixels, classes: Pixels, colours: Pixels) -> Pixels:
    """The photograph under its class colours; pixels that do not count are dark."""
    import numpy as np

    return np.round(0.35 * image + 0.65 * colours[classes]).astype(np.uint8)


if __name__ == "__main__":
    main()
