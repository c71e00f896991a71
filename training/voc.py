"""PASCAL VOC 2012 with the MoCo segmentation backbone: nearest-neighbour retrieval and softmax fine-tuning.

    python training/voc.py retrieve --ckpt checkpoint_0149.pth.tar --data VOCdevkit --out runs/voc_retrieval
    torchrun --nproc-per-node 4 training/voc.py finetune --recipe voc_finetune_cast_small \\
        --set model.init=checkpoint_0399.pth.tar --data VOCdevkit --out runs/voc_finetune
    python training/voc.py evaluate --ckpt runs/voc_finetune/model-29999.pth --data VOCdevkit --out runs/voc_eval

Each command continues where an interrupted one stopped. Class maps go to OUT/results/val/semantic_gray (indices) and
semantic_color, prototypes to OUT/results/train+/semantic_prototype/<image>.npz. `prepare_data.py voc` makes the folder.
`python -m cast_sdk.training.voc` is the same program.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.training.engine import options

if TYPE_CHECKING:
    from torch import Tensor

    from cast_sdk.models.cast import Cast
    from cast_sdk.models.dense import Spml
    from cast_sdk.training.data.dense.base import DenseSplit
    from cast_sdk.training.engine.distributed import World
    from cast_sdk.training.engine.loop import Options
    from cast_sdk.training.engine.recipe import Phase, Recipe
    from cast_sdk.training.metrics.semantic import ConfusionMatrix
    from cast_sdk.training.tasks.voc_model import Pixels, VocViews

_DATA_HELP = "VOCdevkit with VOC2012, sbd and lists (prepare_data.py voc)."


@click.group(help=(__doc__ or "").partition("\n")[0])
def main() -> None:
    pass


@main.command("retrieve", help="Label segments of val by their 20 nearest segments of train+.")
@click.option("--ckpt", required=True, type=click.Path(path_type=Path), help="MoCo checkpoint of cast_seg_*.")
@options.data(_DATA_HELP)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for results; resumes what it holds."
)
@click.option("--neighbours", default=20, show_default=True, help="Entries that vote.")
@click.option("--block", default=65536, show_default=True, help="Memory entries compared at a time.")
@options.device
@options.on_bad_image
def retrieve_command(
    ckpt: Path, data: Path, out: Path, neighbours: int, block: int, device: str, on_bad_image: Any
) -> None:
    from cast_sdk.training.data.dense.opening import open_split
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.tasks.voc_model import load_backbone

    with errors_for_people():
        splits = {name: open_split("voc", data, name, on_bad_image) for name in ("train", "val")}
        world = start(device)
        backbone = load_backbone(ckpt).to(world.device)
        report(retrieve(backbone, splits, out, neighbours, block), splits["val"], out)


@main.command("finetune", help="Train backbone and pixel classifier by a recipe.")
@options.run_options(_DATA_HELP, cache=False, eval_every=1000, log_every=100)
def finetune_command(
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
        settings = load_recipe(recipe, overrides, "voc")
        splits = {name: open_split("voc", data, name, on_bad_image) for name in ("train", "val")}
        world = start(device)
        options = Options(out, log_every, eval_every, save_minutes, allow_world_size)
        finetune(settings, splits, world, options, workers)
        world.finish()


@main.command("evaluate", help="Predict val with a fine-tuned checkpoint and score it.")
@click.option("--ckpt", required=True, type=click.Path(path_type=Path), help="Fine-tuned spml checkpoint.")
@options.data(_DATA_HELP)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for results.")
@options.device
@options.on_bad_image
def evaluate_command(ckpt: Path, data: Path, out: Path, device: str, on_bad_image: Any) -> None:
    from cast_sdk.errors import CheckpointError
    from cast_sdk.models import load_model
    from cast_sdk.training.data.dense.opening import open_split
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people

    with errors_for_people():
        val = open_split("voc", data, "val", on_bad_image)
        world = start(device)
        model: Any = load_model(ckpt, sampler="matrix").to(world.device)
        if model.spec.family != "spml" or model.spec.num_classes != len(val.class_names):
            raise CheckpointError(
                "Evaluation needs a fine-tuned VOC checkpoint.", found=f"{ckpt}: {model.spec.family}", remedy="finetune"
            )
        report(score(model, val, out), val, out)


def retrieve(
    backbone: Cast, splits: dict[str, DenseSplit], out: Path, neighbours: int = 20, block: int = 65536
) -> ConfusionMatrix:
    """Prototypes of "train" as files, then the votes on "val"."""
    from cast_sdk.training.tasks.voc_model import NEIGHBOURS, nearest_classes, nearest_resize, prepare, prototypes

    settings = voc_superpixels()
    memory, labels = build_memory(backbone, splits["train"], out / "results" / "train+" / "semantic_prototype")
    count = len(splits["val"].class_names)

    def predict(image: Pixels) -> Pixels:
        found = prototypes(backbone, prepare(image, settings))
        classes = nearest_classes(found.vectors.cpu(), memory, labels, count, neighbours or NEIGHBOURS, block)
        return nearest_resize(classes.numpy().astype("uint8")[found.clusters.cpu().numpy()], image.shape[:2])

    return predict_split(predict, splits["val"], out)


def build_memory(backbone: Cast, split: DenseSplit, folder: Path) -> tuple[Tensor, Tensor]:
    """Prototypes [M,C] and classes [M] of all images, void ones left out; files that exist are read, not made again."""
    import numpy as np
    import torch

    from cast_sdk.artifact import atomic_write
    from cast_sdk.training.engine.progress import progress
    from cast_sdk.training.tasks.voc_model import prepare, prototypes

    folder.mkdir(parents=True, exist_ok=True)
    settings = voc_superpixels()
    vectors, labels = [], []
    for index, pair in enumerate(progress(split.pairs, "prototypes")):
        file = folder / f"{pair.name}.npz"
        if not file.is_file():
            image, truth = split.read(index)
            made = prototypes(backbone, prepare(image, settings), truth)
            assert made.labels is not None
            with atomic_write(file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, prototype=made.vectors.cpu().numpy(), prototype_label=made.labels)
        with np.load(file) as stored:
            keep = stored["prototype_label"] != 255
            vectors.append(torch.from_numpy(stored["prototype"][keep]))
            labels.append(torch.from_numpy(stored["prototype_label"][keep]))
    return torch.cat(vectors), torch.cat(labels)


def score(model: Any, split: DenseSplit, out: Path | None = None) -> ConfusionMatrix:
    """Confusion matrix of a fine-tuned model; class maps are written when `out` is given."""
    from cast_sdk.training.tasks.voc_model import predict

    mode = model.training
    model.eval()
    confusion = predict_split(lambda image: predict(model, image, voc_superpixels()), split, out)
    model.train(mode)
    return confusion


def predict_split(predict: Callable[[Pixels], Pixels], split: DenseSplit, out: Path | None = None) -> ConfusionMatrix:
    """Run `predict` on every image, write the class maps, add up the confusion matrix."""
    from PIL import Image

    from cast_sdk.artifact import atomic_write
    from cast_sdk.training.engine.progress import progress
    from cast_sdk.training.metrics.semantic import ConfusionMatrix

    confusion = ConfusionMatrix(len(split.class_names))
    folders = {name: out / "results" / "val" / name for name in ("semantic_gray", "semantic_color")} if out else {}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for index, pair in enumerate(progress(split.pairs, "predicting")):
        image, truth = split.read(index)
        classes = predict(image)
        confusion.update(classes, truth)
        for name, folder in folders.items():
            picture = Image.fromarray(classes)
            if name == "semantic_color":
                picture.putpalette([value for colour in split.palette for value in colour])
            with atomic_write(folder / f"{pair.name}.png") as temporary:
                picture.save(temporary, format="PNG")
    return confusion


def report(confusion: ConfusionMatrix, split: DenseSplit, out: Path) -> None:
    """Write OUT/scores.json and print the mean over all classes, absent ones counted as 0."""
    from cast_sdk.artifact import atomic_write

    mean = round(100 * confusion.mean_iou("zero"), 2)
    record = {**confusion.to_dict(), "mean_iou": mean}
    record["iou"] = dict(zip(split.class_names, record["iou"], strict=True))
    with atomic_write(out / "scores.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1))
    print(f"mean_iou {mean}, pixel_accuracy {record['pixel_accuracy']} over {confusion.images} images")


def voc_superpixels() -> Any:
    """1,024 superpixels, 5 bins, 15 iterations."""
    from cast_sdk.models import model_spec

    return model_spec("spml_cast_small").superpixels


def finetune(
    recipe: Recipe, splits: dict[str, DenseSplit], world: World, options: Options, workers: int = 0
) -> dict[str, float]:
    """Run a VOC recipe on "train" and "val"; returns the best validation metrics."""
    from cast_sdk.training.data.dataset import loader
    from cast_sdk.training.data.sampler import EpochSampler
    from cast_sdk.training.engine.loop import Loop
    from cast_sdk.training.tasks.voc_model import RateInBufferSGD, VocViews, build_spml, parameter_groups

    settings, config = recipe.train, recipe.optimizer
    batch = world.per_process(settings.batch, settings.accumulation)
    views = VocViews(splits["train"], recipe)
    sampler = EpochSampler(len(views), batch, seed=settings.seed, rank=world.rank, world=world.size)
    model = build_spml(recipe, splits["train"]).to(world.device)
    groups = parameter_groups(model, config.lr, config.weight_decay)
    optimizer = RateInBufferSGD(groups, config.lr, config.momentum)
    task = Finetuning(recipe, model, views, splits["val"], world)
    batches = loader(views, sampler, workers, pin=world.device.type == "cuda")
    return Loop(task, recipe, sampler, batches, optimizer, world, options).run()


class Finetuning:
    """Task of the loop: pixel cross entropy, mean IoU over VOC val."""

    def __init__(self, recipe: Recipe, model: Spml, views: VocViews, validation: DenseSplit, world: World) -> None:
        from cast_sdk.training.tasks.voc_model import PixelLoss

        self.recipe, self.model, self.views, self.validation, self.world = recipe, model, views, validation, world
        self.finished = False
        for name, parameter in model.named_parameters():
            if not name.endswith(("weight", "bias")):
                parameter.requires_grad_(False)  # the class token: in no parameter group
        self.wrapped = world.wrap(PixelLoss(model), recipe.train.sync_bn)

    def loss(self, batch: Any) -> Tensor:
        image, superpixels, target = (part.to(self.world.device, non_blocking=True) for part in batch)
        return self.wrapped(image, superpixels, target, self.views.count())

    def after_step(self, fraction: float) -> None:
        self.finished = fraction >= 1

    def enter_phase(self, phase: Phase) -> None:
        pass

    def validate(self) -> dict[str, float]:
        metrics: dict[str, float] | None = None
        if self.world.main:
            confusion = score(self.model, self.validation)
            metrics = {
                "mean_iou": 100 * confusion.mean_iou("zero"),
                "pixel_accuracy": 100 * confusion.pixel_accuracy,
            }
        return self.world.from_main(metrics)

    def better(self, new: dict[str, float], best: dict[str, float]) -> bool:
        return new["mean_iou"] > best.get("mean_iou", -1.0)

    def files(self, epoch: int, is_best: bool) -> list[str]:
        steps = self.recipe.schedule.steps
        return [f"model-{steps - 1}.pth" if steps else "model.pth"] if self.finished else []

    def checkpoint(self, epoch: int, outer: dict[str, Any]) -> dict[str, Any]:
        from cast_sdk.models.checkpoints import official_checkpoint

        return official_checkpoint(self.model, "spml", epoch=epoch, **outer)

    def restore(self, raw: dict[str, Any]) -> None:
        self.model.load_state_dict({**raw["embedding_model"], **raw["prediction_model"]})


if __name__ == "__main__":
    main()
