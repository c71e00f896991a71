"""Train a classifier from labels: the DeiT recipe for CAST, and small recipes for small data.

One CPU or one GPU:
    python training/supervised.py --recipe tiny_supervised --data DATA --out runs/tiny
Two processes on two cores, eight GPUs on one node, two nodes:
    torchrun --nproc-per-node 2 training/supervised.py --recipe tiny_supervised --data DATA --out runs/tiny
    torchrun --nproc-per-node 8 training/supervised.py --recipe deit_cast_small --data ILSVRC2014/Img --out runs/deit
    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-endpoint HOST:29500 training/supervised.py ...
The same command continues an interrupted run. `python -m cast_sdk.training.supervised` is the same program.
Writes OUT/checkpoint.pth and best_checkpoint.pth (DeiT's layout), log.jsonl and tensorboard/.
"""

from __future__ import annotations

import dataclasses

import click

from cast_sdk.runtime.commands.program import Command
from cast_sdk.training.engine.options import Run, run_options


@click.command(cls=Command, help=(__doc__ or "").partition("\n")[0])
@run_options("Folder with train/val images.")
@click.option("--taxonomy", metavar="TREE", help="One head per level: a CSV of classes and parents, or a known name.")
def main(run: Run, taxonomy: str | None) -> None:
    from cast_sdk.training.engine.launch import run_program
    from cast_sdk.training.tasks.classification import Classification

    if taxonomy:
        run = dataclasses.replace(run, overrides=(*run.overrides, f"taxonomy.tree={taxonomy}"))
    run_program(Classification, run)


if __name__ == "__main__":
    main()
