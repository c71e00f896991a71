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

from pathlib import Path
from typing import Any

import click

from cast_sdk.runtime.commands.common import OrdinaryPath
from cast_sdk.runtime.commands.program import Group
from cast_sdk.training.engine import options

_SPLIT_HELP = "The data set's folder in its official layout (prepare_data.py checks it)."


@click.group(cls=Group, help=(__doc__ or "").partition("\n")[0])
def main() -> None:
    pass


@main.command("train", help="Fine-tune by a recipe.")
@options.run_options(_SPLIT_HELP, cache=False)
def train_command(run: options.Run) -> None:
    from cast_sdk.training.engine.launch import run_program
    from cast_sdk.training.tasks.segmentation import Segmentation

    run_program(Segmentation, run)


@main.command("evaluate", help="Mean IoU of a checkpoint over sliding windows.")
@click.option("--recipe", required=True, help="Recipe that the checkpoint was trained by.")
@options.data(_SPLIT_HELP)
@click.option("--ckpt", required=True, type=OrdinaryPath(path_type=Path), help="Segmenter checkpoint.")
@click.option("--out", required=True, type=OrdinaryPath(path_type=Path), help="Folder for scores and images.")
@options.overrides
@click.option("--split", default="val", show_default=True)
@click.option("--stride", type=click.IntRange(1), help="Window stride in pixels [default: the recipe's dense.stride].")
@click.option("--multi-scale", is_flag=True, help="Six scales, each with its mirror image.")
@click.option("--save-images", is_flag=True, help="Write class maps (palette PNG) and overlays.")
@options.device
@click.option("--window-batch", type=click.IntRange(1), default=4, show_default=True, help="Windows per forward pass.")
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
    from cast_sdk.models import load_model
    from cast_sdk.training.data.dense.opening import open_split
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.engine.recipe.files import load_recipe
    from cast_sdk.training.metrics import scores_file
    from cast_sdk.training.tasks.dense import MULTI_SCALE, Inference, evaluate
    from cast_sdk.training.tasks.segmentation import check_classes, write_images

    with errors_for_people():
        settings = load_recipe(recipe, overrides, "segment")
        file = out / f"scores_{'ms' if multi_scale else 'ss'}.json"
        world = start(device)
        world.decided_by_main(lambda: scores_file.check(file, out / "images" if save_images else None))
        pairs = open_split(settings.dense.data, data, split, on_bad_image)
        model: Any = load_model(ckpt, sampler=settings.model.sampler).to(world.device)
        check_classes(model, pairs, ckpt)
        ratios, flips = (MULTI_SCALE, (False, True)) if multi_scale else ((1.0,), (False,))
        inference = Inference(
            settings.dense,
            stride or settings.dense.stride,
            ratios,
            flips,
            window_batch,
            source=settings.superpixels.source,
        )
        out.mkdir(parents=True, exist_ok=True)
        confusion = evaluate(model, pairs, inference, world)
        scores = confusion.to_dict()
        if world.main:
            named = {**scores, "iou": dict(zip(pairs.class_names, scores["iou"], strict=True))}
            scores_file.write(file, {"stride": inference.stride, **named})
            print(f"{score_line(scores)} over {scores['images']} images")
            if save_images:
                write_images(model, pairs, inference, out / "images")
        world.finish()


@main.command("baselines", help="What a model must beat, and what superpixels allow at best.")
@click.option("--recipe", required=True, help="Recipe whose data set and superpixels to use.")
@options.data(_SPLIT_HELP)
@click.option("--out", required=True, type=OrdinaryPath(path_type=Path), help="Folder for baselines.json.")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Use every N-th training image.")
def baselines_command(recipe: str, data: Path, out: Path, every: int) -> None:
    import dataclasses

    from cast_sdk.training.data.dense.opening import open_split
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.engine.recipe.files import load_recipe
    from cast_sdk.training.metrics import scores_file
    from cast_sdk.training.metrics.dense_baselines import majority_class, superpixel_colour, superpixel_oracle

    with errors_for_people():
        chosen = load_recipe(recipe, (), "segment")
        scores_file.check(out / "baselines.json")
        train, val = (open_split(chosen.dense.data, data, name) for name in ("train", "val"))
        height, width = val.read(0)[0].shape[:2]
        # As dense as the model's: its count belongs to one crop.
        count = chosen.superpixels.count * height * width // chosen.dense.crop**2
        superpixels = dataclasses.replace(chosen.superpixels.settings(), count=count)
        results = {
            "majority class": majority_class(train, val, every),
            "superpixel colour": superpixel_colour(train, val, superpixels, False, every),
            "superpixel colour and position": superpixel_colour(train, val, superpixels, True, every),
            "true class of every superpixel": superpixel_oracle(val, superpixels),
        }
        out.mkdir(parents=True, exist_ok=True)
        scores_file.write(out / "baselines.json", {name: result.to_dict() for name, result in results.items()})
        for name, result in results.items():
            print(f"{name}: {score_line(result.to_dict())}")


@main.command("pictures", help="Draw a run's curve, and some images with truth and prediction.")
@click.option("--recipe", required=True, help="Recipe of the run.")
@options.data(_SPLIT_HELP)
@click.option("--run", "run", required=True, type=OrdinaryPath(path_type=Path), help="Folder of the run.")
@click.option("--baselines", type=OrdinaryPath(path_type=Path), help="baselines.json to draw as lines.")
@click.option(
    "--out",
    required=True,
    type=OrdinaryPath(path_type=Path),
    help="Folder for RECIPE_curve.png and RECIPE_examples.jpg.",
)
@click.option(
    "--images", type=click.IntRange(1), default=3, show_default=True, help="Validation images, evenly spaced."
)
def pictures_command(recipe: str, data: Path, run: Path, baselines: Path | None, out: Path, images: int) -> None:
    from cast_sdk.models import load_model
    from cast_sdk.training.data.dense.opening import open_split
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.engine.recipe.files import load_recipe
    from cast_sdk.training.metrics.dense_pictures import draw_curve, draw_examples, palette
    from cast_sdk.training.tasks.dense import Inference, predict
    from cast_sdk.training.tasks.segmentation import check_classes

    with errors_for_people():
        settings = load_recipe(recipe, (), "segment")
        split = open_split(settings.dense.data, data, "val")
        model: Any = load_model(run / "best_checkpoint.pth", sampler=settings.model.sampler)
        check_classes(model, split, run / "best_checkpoint.pth")
        out.mkdir(parents=True, exist_ok=True)
        draw_curve(run, out / f"{settings.name}_curve.png", baselines)
        inference = Inference(settings.dense, settings.dense.stride, source=settings.superpixels.source)
        pairs = [split.read(len(split) * index // images) for index in range(images)]
        examples = [(image, label, predict(model, image, inference)) for image, label in pairs]
        draw_examples(examples, split, palette(split), out / f"{settings.name}_examples.jpg")
        print(f"wrote {settings.name}_curve.png and {settings.name}_examples.jpg to {out}")


def score_line(scores: dict[str, Any]) -> str:
    """ "mean_iou 43.1, pixel_accuracy 80.2, mean_accuracy 53.9"."""
    return ", ".join(f"{name} {scores[name]}" for name in ("mean_iou", "pixel_accuracy", "mean_accuracy"))


if __name__ == "__main__":
    main()
