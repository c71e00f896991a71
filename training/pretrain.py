"""Pre-train without labels by MoCo-v3: CAST, conv-ViT, ViT and ToMe on ImageNet-1K, ImageNet-100, COCO or your images.

One CPU or one GPU:
    python training/pretrain.py --recipe tiny_moco --data DATA --out runs/tiny_moco
Eight GPUs on one node, two nodes:
    torchrun --nproc-per-node 8 training/pretrain.py --recipe moco_in1k_cast_small --data ILSVRC2014/Img --out runs/moco
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-endpoint HOST:29500 training/pretrain.py ...
The same command continues an interrupted run. `python -m cast_sdk.training.pretrain` is the same program.
Writes OUT/checkpoint.pth.tar, which the run resumes from, checkpoint_XXXX.pth.tar (XXXX: epoch, from 0; MoCo's layout),
log.jsonl and tensorboard/. Next: training/linear_probe.py.
"""

from __future__ import annotations

import click

from cast_sdk.runtime.commands.program import Command
from cast_sdk.training.engine.options import Run, run_options


@click.command(cls=Command, help=(__doc__ or "").partition("\n")[0])
@run_options("Folder with train/<class>/ or shards.", eval_every=None)
@click.option(
    "--keep-every",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="Epochs between kept checkpoints (and the last).",
)
def main(run: Run, keep_every: int) -> None:
    from cast_sdk.training.engine.launch import run_program
    from cast_sdk.training.tasks.pretraining import Pretraining

    run_program(Pretraining, run, keep_every=keep_every)


if __name__ == "__main__":
    main()
