"""Turn a finished supervised run into a small model to ship: half-precision weights, model card and training curve.

    python training/publish.py --run runs/tiny_supervised --data DATA \\
        --weights cast_sdk/bundled/cast_tiny.safetensors --card cast_sdk/bundled/README.md \\
        --curve docs/images/cast_tiny_curve.png

Takes RUN/best_checkpoint.pth, measures its plain and averaged weights over the validation split after rounding to half
precision, and keeps the better ones. `--mix 0.5:earlier.safetensors` takes half of each weight from that model, as
the one that the run began with. `python -m cast_sdk.training.publish` is the same program.
"""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cast_sdk.runtime.commands.common import OrdinaryPath
from cast_sdk.runtime.commands.program import Command

FILE = OrdinaryPath(path_type=Path, dir_okay=False)
FOLDER = OrdinaryPath(path_type=Path, exists=True, file_okay=False)


@click.command(cls=Command, help=(__doc__ or "").partition("\n")[0])
@click.option("--run", "run", required=True, type=FOLDER, help="Folder of the run.")
@click.option("--checkpoint", type=FILE, help="Another checkpoint than RUN/best_checkpoint.pth.")
@click.option(
    "--mix", multiple=True, metavar="SHARE:FILE", help="Share of the weights that comes from this model. Repeatable."
)
@click.option("--data", required=True, type=FOLDER, help="Folder with the val split.")
@click.option("--weights", required=True, type=FILE, help=".safetensors file to write.")
@click.option("--card", required=True, type=FILE, help="Model card to write (Markdown).")
@click.option("--curve", required=True, type=FILE, help="Picture of the training curve to write (PNG).")
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="Images per validation step.")
def main(
    run: Path,
    checkpoint: Path | None,
    mix: tuple[str, ...],
    data: Path,
    weights: Path,
    card: Path,
    curve: Path,
    batch: int,
) -> None:
    from cast_sdk.errors import InputError
    from cast_sdk.models import load_model
    from cast_sdk.models.checkpoints.mixing import parse_share
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people, load_images
    from cast_sdk.training.metrics.accuracy import accuracy, evaluation_views

    with errors_for_people():
        world = start("cpu")
        shares = [parse_share(text) for text in mix]
        for _, file in shares:
            if weights.exists() and Path(file).exists() and weights.samefile(file):
                raise InputError(
                    f"--weights would replace {file}, which is mixed in.", remedy="give --weights another name"
                )
        others = [(share, load_model(file)) for share, file in shares]
        path = checkpoint or run / "best_checkpoint.pth"
        images = load_images(data, "val", "error", False, world)
        results: list[tuple[dict[str, float], Any, str]] = []
        for kind in ("last", "averaged"):
            model = half_rounded(path, averaged=kind == "averaged", others=others)
            if model is None:
                continue
            views = evaluation_views(model.spec, images, "stretch")
            results.append((accuracy(model, views, world, batch), model, kind))
            print(f"{kind} weights: top-1 {results[-1][0]['top1']:.2f}")
        metrics, model, kind = max(results, key=lambda result: result[0]["top1"])
        for target in (weights, card, curve):
            target.parent.mkdir(parents=True, exist_ok=True)
        write(model, path, run, metrics, kind + (", mixed" if mix else ""), weights, card, curve, len(images))
        print(f"{weights} ({weights.stat().st_size / 1e6:.1f} MB): top-1 {metrics['top1']:.2f}, {kind} weights")


def half_rounded(path: Path, averaged: bool, others: Sequence[tuple[float, Any]] = ()) -> Any:
    """The checkpoint's model, mixed with others and rounded to half precision; None without averaged weights."""
    from cast_sdk.errors import CheckpointError
    from cast_sdk.models.checkpoints.mixing import mix
    from cast_sdk.training.metrics.accuracy import open_checkpoint

    try:
        model = open_checkpoint(str(path), ema=averaged)
    except CheckpointError:
        if averaged:
            return None
        raise
    mix(model, others)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half().float())
    return model.eval()


def write(
    model: Any,
    checkpoint: Path,
    run: Path,
    metrics: dict[str, float],
    kind: str,
    weights: Path,
    card: Path,
    curve: Path,
    images: int,
) -> None:
    import dataclasses

    import torch

    from cast_sdk.models import save_native
    from cast_sdk.models.checkpoints.reading import read_file
    from cast_sdk.system.files import atomic_write
    from cast_sdk.training.metrics.curve import draw_classification

    stored = read_file(checkpoint)["resume"]
    spec = dataclasses.replace(
        model.spec,
        licence="MIT",
        source=f"training/supervised.py --recipe {stored['recipe']['name']}",
    )
    model.spec = spec
    save_native(model, weights, torch.float16)
    draw_classification(run, curve, spec.name)
    with atomic_write(card) as temporary:
        temporary.write_text(card_text(model, stored, metrics, kind, images, weights, curve))


def card_text(
    model: Any,
    stored: dict[str, Any],
    metrics: dict[str, float],
    kind: str,
    images: int,
    weights: Path,
    curve: Path,
) -> str:
    import os

    recipe, spec = stored["recipe"], model.spec
    numbers = sum(parameter.numel() for parameter in model.parameters())
    batch = recipe["train"]["batch"]
    seen, processes = stored["total"] * batch, stored["world_size"]
    size = weights.stat().st_size / 1e6
    picture = Path(os.path.relpath(curve.resolve(), weights.resolve().parent)).as_posix()
    return f"""# {spec.name}

A small CAST: one of {spec.num_classes} classes and four nested levels of segments.

| | |
|---|---|
| Architecture | CAST family `{spec.family}`, width {spec.embed_dim}, depths {spec.depths}, {spec.num_heads} heads |
| Input | {spec.image_size} x {spec.image_size} pixels, {spec.superpixels.count} SEEDS superpixels \
({spec.superpixels.bins} bins, {spec.superpixels.iterations} passes) |
| Segments per level | {", ".join(map(str, spec.clusters))} |
| Parameters | {numbers / 1e6:.2f} million, stored in half precision ({size:.1f} MB) |
| Top-1 / top-5 | **{metrics["top1"]:.1f} % / {metrics["top5"]:.1f} %** on {images} validation images (chance \
{100 / spec.num_classes:.1f} %), {kind} weights after rounding to half precision |

## Training

Recipe `{recipe["name"]}` (`training/recipes/{recipe["name"]}.yaml`), batch {batch}, from {start_of(recipe)},
with {signals_of(recipe)}:

    torchrun --nproc-per-node {processes} training/supervised.py --recipe {recipe["name"]} --data DATA --out RUN \\
        --cache --set train.batch={batch}

{seen:,} images seen in {stored["seconds"] / 60:.0f} minutes on {processes} processes ({platform.machine()}).

![Training curve]({picture})

## Limits

- It knows {spec.num_classes} classes (`model.spec.class_names`); of everything else it knows nothing.
{level_note(recipe)}
- It inherits the bias of its photographs. Do not use it to decide about people.

Made on {datetime.date.today().isoformat()} by `training/publish.py`. Licence of the weights: {spec.licence}.
"""


def start_of(recipe: dict[str, Any]) -> str:
    return "earlier weights" if recipe["model"].get("init") else "random weights"


def signals_of(recipe: dict[str, Any]) -> str:
    """What the loss of a run looked at, from its recipe."""
    found = ["labels"]
    if recipe.get("teacher", {}).get("weight"):
        found.append("a teacher's soft labels")
    if recipe.get("levels", {}).get("weight"):
        found.append("a loss on the levels")
    return ", ".join(found[:-1]) + " and " + found[-1] if len(found) > 1 else "labels only"


def level_note(recipe: dict[str, Any]) -> str:
    if recipe.get("levels", {}).get("weight"):
        return "- Its levels were drawn to regions of colour and of people's outlines, all four of them."
    return (
        "- The last pooling (level 4) keeps its random weights, as in every published classifier of this family: the\n"
        "  class does not depend on it, so training never moves it. Levels 1 to 3 are trained."
    )


if __name__ == "__main__":
    main()
