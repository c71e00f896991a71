"""Train a linear classifier on the frozen features of a pre-trained encoder, as MoCo-v3 reports them.

One CPU or one GPU; what pre-training left, published weights, or random weights to compare with:
    python training/linear_probe.py --recipe tiny_lincls --checkpoint FILE --data DATA --out runs/probe
    python training/linear_probe.py --recipe tiny_lincls --checkpoint random --data DATA --out runs/probe_random
Eight GPUs:
    torchrun --nproc-per-node 8 training/linear_probe.py --recipe lincls_in1k_cast_small --checkpoint FILE ...
The same command continues an interrupted run. `python -m cast_sdk.training.linear_probe` is the same program.
Writes OUT/checkpoint.pth.tar and model_best.pth.tar (the probe's layout), log.jsonl and tensorboard/.
"""

from __future__ import annotations

import click

from cast_sdk.runtime.commands.program import Command
from cast_sdk.training.engine.options import Run, run_options


@click.command(cls=Command, help=(__doc__ or "").partition("\n")[0])
@click.option("--checkpoint", required=True, help="Pre-training file, hf://owner/repository/file, or 'random'.")
@run_options("Folder with train/val images.")
def main(run: Run, checkpoint: str) -> None:
    from cast_sdk.training.engine.launch import run_program
    from cast_sdk.training.tasks.probe import LinearProbe

    run_program(LinearProbe, run, checkpoint=checkpoint)


if __name__ == "__main__":
    main()
