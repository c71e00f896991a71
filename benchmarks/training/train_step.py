"""One training step of CAST-S on the CPU against the reference recipe's, in one process, in turns.

    pip install --no-deps --target build/opencv-contrib "opencv-contrib-python>=5"
    CAST_SDK_OPENCV_CONTRIB=build/opencv-contrib python benchmarks/training/train_step.py PHOTOGRAPHS [--batch 8]

A step decodes and augments the images by the DeiT recipe, computes superpixels, and runs forward, backward and AdamW.
Both sides share the model code; the reference side has what its recipe prescribes: OpenCV's SEEDS in the loader and
farthest-point sampling in float64. Ours has the package's SEEDS kernel, `sampler: matrix`, the stem channels last
(`train.channels_last`) and torch's fused AdamW, as our recipes do.

Times are processor time of the process, which other programs on the machine hardly change; on one thread (the default)
that is the time of a quiet machine. Ratios are taken per round and their median is given.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, os.environ.get("CAST_SDK_OPENCV_CONTRIB", "."))

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from cast_sdk.models import create_model
from cast_sdk.superpixels.kernels import NativeKernel, OpenCVKernel
from cast_sdk.training.data.dataset import Images, LabelledViews
from cast_sdk.training.data.sources import ImageSource
from cast_sdk.training.data.transforms import denormalised_uint8
from cast_sdk.training.engine.optim import decay_groups, trainable
from cast_sdk.training.engine.recipe.files import load_recipe

PARTS = ("images", "superpixels", "forward", "backward", "optimizer")


class Step:
    """A model, its optimizer and a way to make superpixels; calling it runs one step and returns seconds per part."""

    def __init__(self, views: LabelledViews, kernel: Any, sampler: Any, ours: bool, bf16: bool) -> None:
        torch.manual_seed(0)
        self.model = create_model("cast_deit_small", sampler=sampler, drop_path=0.1).train()
        self.layout = torch.channels_last if ours else torch.contiguous_format
        self.model.patch_embed.to(memory_format=self.layout)
        groups = decay_groups(trainable(self.model), 0.05, "timm")
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=ours)
        settings = views.settings
        self.kernel = kernel(224, 224, settings.count, settings.bins, settings.iterations)
        self.views, self.bf16, self.count = views, bf16, settings.count

    def superpixels(self, image: torch.Tensor) -> torch.Tensor:
        labels = np.empty(image.shape[1:], np.int32)
        self.kernel(cv2.cvtColor(denormalised_uint8(image), cv2.COLOR_RGB2LAB), labels)
        return torch.from_numpy(labels)

    def __call__(self, first: int, batch: int) -> list[float]:
        clock = [time.process_time()]
        items = [self.views[(first + i) % len(self.views), 0, first + i] for i in range(batch)]
        images = torch.stack([item[0] for item in items]).contiguous(memory_format=self.layout)
        targets = torch.tensor([item[2] for item in items])
        clock.append(time.process_time())
        labels = torch.stack([self.superpixels(image) for image in images])
        clock.append(time.process_time())
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = F.cross_entropy(self.model(images, labels, self.count).logits.float(), targets)
        clock.append(time.process_time())
        loss.backward()
        clock.append(time.process_time())
        self.optimizer.step()
        self.optimizer.zero_grad()
        clock.append(time.process_time())
        return [after - before for before, after in itertools.pairwise(clock)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="photographs (*.jpg, also in subfolders)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if not hasattr(cv2, "ximgproc"):
        sys.exit("This OpenCV has no cv2.ximgproc: set CAST_SDK_OPENCV_CONTRIB as the first lines of this script say.")
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    paths = sorted(arguments.folder.rglob("*.jpg"))
    if not paths:
        sys.exit(f"no *.jpg in {arguments.folder}")
    places = [(str(path), -1, 0) for path in paths]
    source = ImageSource(arguments.folder, "", places, np.arange(len(paths)) % 1000, [str(path) for path in paths])
    views = LabelledViews(Images(source), load_recipe("deit_cast_small"), train=True, superpixels=False)

    sides = {
        "reference, float32": Step(views, OpenCVKernel, "float64", ours=False, bf16=False),
        "ours, float32": Step(views, NativeKernel, "matrix", ours=True, bf16=False),
        "ours, bf16 autocast": Step(views, NativeKernel, "matrix", ours=True, bf16=True),
    }
    times: dict[str, list[list[float]]] = {name: [] for name in sides}
    for number in range(arguments.rounds + 1):
        for name, step in sides.items():
            parts = step(number * arguments.batch, arguments.batch)
            if number:  # the first round warms up
                times[name].append(parts)

    print(
        f"batch {arguments.batch}, {arguments.threads} thread(s), {arguments.rounds} rounds, {platform.machine()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, OpenCV {cv2.__version__}"
    )
    print("| step | " + " | ".join(PARTS) + " | total ms: median (min) | times faster: median |")
    print("|---" * (len(PARTS) + 3) + "|")
    reference = [sum(parts) for parts in times["reference, float32"]]
    for name, rounds in times.items():
        totals = [sum(parts) for parts in rounds]
        medians = [1e3 * statistics.median(column) for column in zip(*rounds, strict=True)]
        ratio = statistics.median(theirs / ours for theirs, ours in zip(reference, totals, strict=True))
        cells = " | ".join(f"{value:.0f}" for value in medians)
        print(f"| {name} | {cells} | {1e3 * statistics.median(totals):.0f} ({1e3 * min(totals):.0f}) | {ratio:.2f} |")


if __name__ == "__main__":
    main()
