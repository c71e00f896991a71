"""PASCAL VOC 2012 with the MoCo segmentation backbone: nearest-neighbour retrieval and softmax fine-tuning.

    python training/voc.py retrieve --ckpt checkpoint_0149.pth.tar --data VOCdevkit --out runs/voc_retrieval
    torchrun --nproc-per-node 4 training/voc.py finetune --recipe voc_finetune_cast_small \\
        --set model.init=checkpoint_0399.pth.tar --data VOCdevkit --out runs/voc_finetune
    python training/voc.py evaluate --ckpt runs/voc_finetune/model-29999.pth --data VOCdevkit --out runs/voc_eval

All three run below torchrun or srun, too, and share the work. Each command continues where an interrupted one stopped.
Class maps go to OUT/results/val/semantic_gray (indices) and
semantic_color, prototypes to OUT/results/train+/semantic_prototype/<image>.npz. `prepare_data.py voc` makes the folder.
`python -m cast_sdk.training.voc` is the same program.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cast_sdk.runtime.commands.common import OrdinaryPath
from cast_sdk.runtime.commands.program import Group
from cast_sdk.training.engine import options

_DATA_HELP = "VOCdevkit with VOC2012, sbd and lists (prepare_data.py voc)."


@click.group(cls=Group, help=(__doc__ or "").partition("\n")[0])
def main() -> None:
    pass


@main.command("retrieve", help="Label segments of val by their 20 nearest segments of train+.")
@click.option("--ckpt", required=True, type=OrdinaryPath(path_type=Path), help="MoCo checkpoint of cast_seg_*.")
@options.data(_DATA_HELP)
@click.option(
    "--out", required=True, type=OrdinaryPath(path_type=Path), help="Folder for results; resumes what it holds."
)
@click.option("--neighbours", type=click.IntRange(1), default=20, show_default=True, help="Entries that vote.")
@click.option(
    "--block", type=click.IntRange(1), default=65536, show_default=True, help="Memory entries compared at a time."
)
@options.device
@options.on_bad_image
def retrieve_command(
    ckpt: Path, data: Path, out: Path, neighbours: int, block: int, device: str, on_bad_image: Any
) -> None:
    from cast_sdk.training.data.dense.opening import open_split
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.metrics import scores_file
    from cast_sdk.training.tasks.voc_prediction import PREDICTED, SCORES, report
    from cast_sdk.training.tasks.voc_retrieval import load_backbone, retrieve

    with errors_for_people():
        world = start(device)
        world.decided_by_main(lambda: scores_file.check(out / SCORES, out / PREDICTED))
        splits = {name: open_split("voc", data, name, on_bad_image) for name in ("train", "val")}
        backbone = load_backbone(ckpt).to(world.device)
        confusion = retrieve(backbone, splits, out, neighbours, block, world)
        if world.main:
            report(confusion, splits["val"], out)
        world.finish()


@main.command("finetune", help="Train backbone and pixel classifier by a recipe.")
@options.run_options(_DATA_HELP, cache=False, eval_every=1000, log_every=100)
def finetune_command(run: options.Run) -> None:
    from cast_sdk.training.engine.launch import run_program
    from cast_sdk.training.tasks.voc_finetuning import Finetuning

    run_program(Finetuning, run)


@main.command("evaluate", help="Predict val with a fine-tuned checkpoint and score it.")
@click.option("--ckpt", required=True, type=OrdinaryPath(path_type=Path), help="Fine-tuned spml checkpoint.")
@options.data(_DATA_HELP)
@click.option("--out", required=True, type=OrdinaryPath(path_type=Path), help="Folder for results.")
@options.device
@options.on_bad_image
def evaluate_command(ckpt: Path, data: Path, out: Path, device: str, on_bad_image: Any) -> None:
    from cast_sdk.training.data.dense.opening import open_split
    from cast_sdk.training.engine.distributed import start
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.metrics import scores_file
    from cast_sdk.training.tasks.voc_finetuning import load_finetuned, score
    from cast_sdk.training.tasks.voc_prediction import PREDICTED, SCORES, report

    with errors_for_people():
        world = start(device)
        world.decided_by_main(lambda: scores_file.check(out / SCORES, out / PREDICTED))
        val = open_split("voc", data, "val", on_bad_image)
        confusion = score(load_finetuned(ckpt, val).to(world.device), val, out, world)
        if world.main:
            report(confusion, val, out)
        world.finish()


if __name__ == "__main__":
    main()
