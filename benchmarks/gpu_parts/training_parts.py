"""Training steps of CAST: DeiT's and MoCo's, in three precisions, with the real loader, and an overflow under AMP."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cast_sdk import bundled
from cast_sdk.models import create_model, model_spec
from cast_sdk.models.moco import MoCo
from cast_sdk.spec import ModelSpec
from cast_sdk.superpixels import seeds_count
from cast_sdk.training.data.dataset import Images, LabelledViews
from cast_sdk.training.data.sources import ImageSource
from cast_sdk.training.data.transforms import normalise
from cast_sdk.training.data.views import TwoViews
from cast_sdk.training.engine.recipe.files import load_recipe
from gpu_parts.findings import Findings, Settings

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
Loss = Callable[[Any], Tensor]


def deit(settings: Settings) -> tuple[torch.nn.Module, Loss]:
    torch.manual_seed(0)
    name = settings.model.replace("cast_", "cast_deit_") if settings.model == "cast_small" else settings.model
    sizes = {"num_classes": 1000, **settings.sizes}
    model = create_model(name, sampler="matrix", **sizes).to(settings.device).train()
    return model, lambda batch: F.cross_entropy(model(normalise(batch[0]), batch[1]).logits.float(), batch[2])


def moco(settings: Settings) -> tuple[torch.nn.Module, Loss]:
    torch.manual_seed(0)
    recipe = load_recipe("moco_in1k_cast_small").moco
    name = "cast_small" if settings.model == "cast_tiny" else settings.model
    wide = {"head": "projector", "head_dims": (64, 32) if settings.dry else (4096, 256)}
    spec = model_spec(name, **{**settings.sizes, "stage": "pretrain"})
    model = MoCo(dataclasses.replace(spec, **wide), sampler="matrix").initialise().to(settings.device).train()
    momentum = float(recipe.momentum)

    def loss(batch: Any) -> Tensor:
        views, maps = (normalise(batch[0]), normalise(batch[0].flip(-1))), (batch[1], batch[1].flip(-1))
        value: Tensor = model(views, maps, momentum)[0]
        return value

    return model, loss


def random_batch(settings: Settings, spec: ModelSpec) -> tuple[Tensor, Tensor, Tensor]:
    """Noise on a grid of superpixels, uint8 [N,3,H,W], int32 [N,H,W] and classes, on the device."""
    generator = torch.Generator().manual_seed(0)
    side = spec.image_size
    cells = round(seeds_count(side, side, spec.superpixels.count) ** 0.5)
    edge = torch.arange(side) * cells // side
    labels = (cells * edge[:, None] + edge[None]).to(torch.int32).expand(settings.train_batch, -1, -1)
    images = torch.randint(0, 256, (settings.train_batch, 3, side, side), dtype=torch.uint8, generator=generator)
    classes = torch.randint(0, 5, (settings.train_batch,), generator=generator)
    return images.to(settings.device), labels.contiguous().to(settings.device), classes.to(settings.device)


class Step:
    """One step as the training loop makes it: autocast, scaled loss, fused AdamW."""

    def __init__(self, model: torch.nn.Module, loss: Loss, settings: Settings, precision: str) -> None:
        self.device, self.loss, self.dtype = settings.device, loss, DTYPES.get(precision)
        parameters = [value for value in model.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, 1e-4, fused=True)
        self.scaler = torch.amp.GradScaler(self.device, enabled=precision == "fp16")

    def __call__(self, batch: Any) -> Tensor:
        with torch.autocast(self.device, self.dtype) if self.dtype else contextlib.nullcontext():
            loss = self.loss(batch)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return loss.detach()


def steps(found: Findings, settings: Settings) -> None:
    """Loss and time of every kind of step on one batch that stays."""
    for kind, make in (("DeiT", deit), ("MoCo", moco)):
        for precision in ("fp32",) if settings.dry else ("fp32", "bf16", "fp16"):
            for compiled in (False,) if settings.dry else (False, True):
                what = f"{kind} step {precision}{', compiled' if compiled else ''}, batch {settings.train_batch}"
                found.part(what, lambda m=make, p=precision, c=compiled, w=what: one(found, settings, m, p, c, w))
    if settings.dry:
        found.leave_out("training steps in bf16 and fp16, and compiled", "a dry run does without")


def one(found: Findings, settings: Settings, make: Any, precision: str, compiled: bool, what: str) -> None:
    model, loss = make(settings)
    spec = model.spec
    if compiled:
        torch._dynamo.reset()
        loss = torch.compile(loss)
    step, batch = Step(model, loss, settings, precision), random_batch(settings, spec)
    values, losses = [], []
    for number in range(settings.train_rounds + 3):
        start = perf_counter()
        losses.append(step(batch))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if number >= 3:
            values.append((perf_counter() - start) * 1e3)
    first, last = float(losses[0]), float(losses[-1])
    # MoCo's keys move with every step, so that its loss need not fall on a batch that stays.
    fine = np.isfinite([first, last]).all() and (make is moco or last < first)
    rate = settings.train_batch / (sorted(values)[len(values) // 2] / 1e3)
    peak = f", peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if torch.cuda.is_available() else ""
    found.check(what, bool(fine), f"loss {first:.3f} to {last:.3f}, {rate:.0f} images/s{peak}")
    found.latencies.append((settings.model, what, values))


def loader(found: Findings, settings: Settings) -> None:
    """Steps that decode, augment and make superpixels as training does: how much of them is waiting for data."""
    files = [str(path) for path in bundled.photos()]
    source = ImageSource(bundled.photos()[0].parent, "", [(f, -1, 0) for f in files], np.arange(len(files)) % 5, files)
    recipes = {"DeiT": "deit_cast_small", "MoCo": "moco_in1k_cast_small"}
    for kind, name in recipes.items():
        recipe = load_recipe(name)
        views: Any = (
            LabelledViews(Images(source), recipe, train=True) if kind == "DeiT" else TwoViews(Images(source), recipe)
        )
        keys = [(index % len(files), 0, index) for index in range(settings.train_batch * (2 if settings.dry else 12))]
        data = torch.utils.data.DataLoader(
            views,
            settings.train_batch,
            sampler=keys,
            num_workers=0 if settings.dry else 12,
            pin_memory=not settings.dry,
        )
        if settings.dry:
            batch = next(iter(data))
            image = batch[0] if kind == "DeiT" else batch[0][0]
            found.check(f"{kind} loader", len(image) == settings.train_batch, f"{list(image.shape)} {image.dtype}")
            continue
        model, loss = deit(settings) if kind == "DeiT" else moco(settings)
        step, waited, whole = Step(model, loss, settings, "bf16"), 0.0, perf_counter()
        stream = iter(data)
        for number in itertools.count():
            start = perf_counter()
            batch = next(stream, None)
            if batch is None:
                break
            waited += perf_counter() - start if number > 1 else 0
            if kind == "DeiT":
                images, labels, classes = (value.to("cuda", non_blocking=True) for value in batch)
            else:
                images, labels, classes = batch[0][0].to("cuda"), batch[1][0].to("cuda"), None
            step((images, labels, classes))
            if number == 1:
                torch.cuda.synchronize()
                whole = perf_counter()
        torch.cuda.synchronize()
        seconds = perf_counter() - whole
        rate = settings.train_batch * (number - 2) / seconds
        found.check(f"{kind} steps with the loader", rate > 0, f"{rate:.0f} images/s, {waited / seconds:.0%} waiting")


def overflow(found: Findings, settings: Settings) -> None:
    """A loss that overflows under AMP: the step is skipped, the scale falls, and the weights stay as they were."""
    model, loss = deit(settings)
    step, batch = Step(model, loss, settings, "fp16"), random_batch(settings, model.spec)
    if not step.scaler.is_enabled():
        found.leave_out("an overflow under AMP", "torch has no gradient scaler here")
        return
    if settings.dry:
        step.dtype = torch.bfloat16  # processors compute half precision too slowly
    step(batch)
    before, scale = [value.detach().clone() for value in model.parameters()], step.scaler.get_scale()
    plain, step.loss = step.loss, lambda batch: plain(batch) * float("inf")
    step(batch)
    same = all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    found.check("an overflow leaves the weights", same, "as they were" if same else "changed")
    lower = step.scaler.get_scale()
    found.check("an overflow lowers the scale", lower < scale, f"{scale:.0f} to {lower:.0f}")
    step.loss = plain
    step(batch)
    finite = all(bool(value.isfinite().all()) for value in model.parameters())
    found.check("the step after an overflow", finite, "finite weights" if finite else "NaN in the weights")
