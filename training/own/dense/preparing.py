"""Images with masks before a run: found, looked at, split, planned for, described."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.models import load_model
from cast_sdk.spec import ModelSpec
from cast_sdk.superpixels import seeds_count
from cast_sdk.system.files import sha256
from cast_sdk.training.data.dataset import OnBadImage
from cast_sdk.training.data.dense.base import IGNORE
from cast_sdk.training.engine import provenance
from cast_sdk.training.engine.models import BUNDLED, start_file
from cast_sdk.training.engine.progress import progress
from cast_sdk.training.own import run_folder
from cast_sdk.training.own.classes.labelled import TRAIN, VAL
from cast_sdk.training.own.classes.planning import Choices, Plan, check_batch, length_of, overridden
from cast_sdk.training.own.dense.base import Masked, OwnSplit, Unlabelled, split_of
from cast_sdk.training.own.dense.finding import find_masked
from cast_sdk.training.own.running import Request
from cast_sdk.training.own.splitting import copies, digest, note_on_copies
from cast_sdk.training.tasks.segmentation import Segmentation

VIEWS = 3000  # crops that a run sees at least, counted with every epoch
EPOCHS = (5, 60)
SIDE = 256
SPACING = 16  # pixels between superpixels


@dataclass(frozen=True)
class MaskRequest(Request):
    """What the command line asks for, and what pixels outside of all polygons are."""

    unlabelled: Unlabelled = "background"


@dataclass
class Prepared:
    """Data that was looked at and split, and the plan made for it."""

    masked: Masked
    split: npt.NDArray[np.int8]
    pixels: npt.NDArray[np.int64]  # of each class in all images
    plan: Plan
    made_by: dict[str, Any]

    def part(self, part: int, on_bad: OnBadImage) -> OwnSplit:
        return split_of(self.masked, np.flatnonzero(self.split == part), on_bad)


def prepare(request: MaskRequest) -> Prepared:
    """Find, look at and split the images, and plan the run. Writes nothing."""
    masked = find_masked(request.data, request.unlabelled)
    masked, survey = look_at(masked, request.on_bad_image)
    counts, groups = survey.counts, copies(survey.contents)
    masked.notes.extend(note_on_copies(groups))
    split = masked.split
    if split is None:
        split = split_images(counts > 0, request.validation, request.choices.seed, groups)
    absent = (counts[split == TRAIN].sum(0) == 0) & (counts.sum(0) > 0)
    if absent.any():
        names = [name for name, missing in zip(masked.class_names, absent, strict=True) if missing]
        masked.notes.append(f"classes without a training image ({len(names)}): {', '.join(names[:6])}")
    file = start_file(request.model)
    spec = load_model(file).spec
    init = BUNDLED if request.model == BUNDLED else run_folder.absolute(request.model)
    plan = plan_segmentation(spec, init, int((split == TRAIN).sum()), survey.short_side, counts, request.choices)
    Segmentation.check(plan.recipe)
    made_by = {
        "program": "segment",
        "data": str(request.data.resolve()),
        "unlabelled": request.unlabelled,
        "fingerprint": provenance.fingerprint(
            (masked.class_names, *zip(masked.names, split.tolist(), masked.marks, survey.contents, strict=True))
        ),
        "model": sha256(file) if Path(file).is_file() else request.model,
        "recipe": plan.recipe.to_dict(),
    }
    return Prepared(masked, split, counts.sum(0), plan, made_by)


@dataclass(frozen=True)
class Survey:
    """What was seen of the images before a run.

    Attributes:
        counts: pixels of each class in each image, int64 [images, classes].
        short_side: median of the shorter sides in pixels.
        contents: a digest of each image file.
    """

    counts: npt.NDArray[np.int64]
    short_side: int
    contents: list[bytes]


def look_at(masked: Masked, on_bad: OnBadImage) -> tuple[Masked, Survey]:
    """Read every pair once. The images that can be used, and what was seen of them.

    Raises:
        InputError: for unreadable images or masks, all of them named, unless they are left out.
    """
    everything = split_of(masked, np.arange(len(masked)))
    counts, sides, contents, bad = [], [], [], {}
    for at in progress(range(len(masked)), "looking at the images", len(masked)):
        try:
            image, label = everything.read(at)
        except InputError as error:
            bad[at] = error
            continue
        counts.append(np.bincount(label.ravel(), minlength=IGNORE + 1)[: len(masked.class_names)])
        sides.append(min(image.shape[:2]))
        contents.append(digest(masked.images[at].read_bytes()))
    if bad:
        listed = ", ".join(masked.names[at] for at in list(bad)[:5])
        first = next(iter(bad.values()))
        if on_bad == "error" or len(bad) > len(masked) - 2:
            raise InputError(
                f"{len(bad)} of {len(masked)} images or their masks cannot be used: {listed}.",
                found=f"{first.problem} {first.found or ''}".strip(),
                remedy="mend or remove them, or leave them out with --on-bad-image skip",
            )
        masked = masked.only(np.setdiff1d(np.arange(len(masked)), list(bad)))
        masked.notes.append(f"unreadable images are left out ({len(bad)}): {listed}")
    return masked, Survey(np.array(counts, np.int64), int(np.median(sides)), contents)


def split_images(
    present: npt.NDArray[np.bool_], share: float, seed: int, groups: npt.NDArray[np.integer] | None = None
) -> npt.NDArray[np.int8]:
    """TRAIN or VAL for each image: int8 [N]. No class loses its last training image; copies stay together.

    Args:
        present: which classes are in each image, [N, classes].
        share: of the images that judge; at least one does, and never all.
        seed: of the choice.
        groups: a number for each image, equal for copies of one; default: all different.
    """
    groups = np.arange(len(present)) if groups is None else groups
    split = np.full(len(present), TRAIN, np.int8)
    left = present.sum(0)
    wanted = min(max(1, round(share * len(present))), len(present) - 1)
    for at in np.random.default_rng(seed).permutation(len(present)):
        members = groups == groups[at]
        after = left - present[members].sum(0)
        if split[at] == TRAIN and (after[present[members].any(0)] > 0).all():
            split[members] = VAL
            left = after
        if (split == VAL).sum() >= wanted:
            break
    if not (split == VAL).any():
        raise InputError(
            "Every image has a class that no other image has, so none can judge.",
            remedy="add images: each class in at least two",
        )
    return split


def plan_segmentation(
    spec: ModelSpec, init: str, count: int, short_side: int, pixels: npt.NDArray[np.int64], choices: Choices
) -> Plan:
    """The recipe for images with these masks.

    Args:
        spec: of the model to start from.
        init: its checkpoint.
        count: training images.
        short_side: median of the images' shorter sides in pixels.
        pixels: of each class in each image.
        choices: of the person.
    """
    if spec.family not in ("cast", "cast_deit", "segmenter"):
        raise InputError(
            f"{init} is a model of the family {spec.family}, and a segmenter starts from CAST or a Segmenter.",
            remedy="give another --model, or leave it out for the bundled one",
        )
    side = choices.image_size or min(SIDE, max(96, short_side // 32 * 32))
    if side % 32:
        better = max(2, side // 32) * 32
        raise InputError(f"--image-size is {side}, not a multiple of 32.", remedy=f"--image-size {better}")
    superpixels = (side // SPACING) ** 2
    found = seeds_count(side, side, superpixels)
    clusters = tuple(max(5 - level, round(found * part)) for level, part in enumerate((0.31, 0.16, 0.08, 0.04)))
    batch = choices.batch or min(8, count)
    epochs = choices.epochs or min(max(EPOCHS[0], math.ceil(VIEWS / count)), EPOCHS[1])
    shares = pixels.sum(0) / max(1, pixels.sum())
    shares = shares[shares > 0]
    balanced = choices.balance == "yes" or (choices.balance == "auto" and shares.max() > 4 * shares.min())
    steps = epochs * max(1, count // batch)
    data = {
        "name": "segment",
        "program": "segment",
        "notes": "Made by cast-train segment from the data and its options.",
        "model": {
            "name": "segmenter_cast_small",
            "options": {
                "embed_dim": spec.embed_dim,
                "depths": list(spec.depths),
                "num_heads": spec.num_heads,
                "clusters": list(clusters),
                "position_grid": spec.position_grid,
                "decoder_heads": max(1, spec.embed_dim // 64),
            },
            "dropout": 0.0,
            "init": init,
        },
        "superpixels": {
            "count": superpixels, "bins": spec.superpixels.bins, "iterations": spec.superpixels.iterations,
        },
        "dense": {
            "short_side": side, "aspect": 4.0, "scale": [0.75, 1.5], "crop": side, "category_cap": 0.75,
            "photometric": False, "class_balance": 0.5 if balanced else 0.0,
            "window": side, "train_stride": side * 7 // 8, "stride": side // 2,
        },
        "augment": {"flip": 0.5},
        "optimizer": {"name": "adamw", "lr": choices.lr or 1e-3, "weight_decay": 0.05},
        "schedule": {
            "kind": "poly", "epochs": epochs, "power": 0.9, "minimum": 1e-5, "warmup_steps": min(50, steps // 10),
        },
        "train": {"batch": batch, "precision": choices.precision, "seed": choices.seed},
    }  # fmt: skip
    asked = () if choices.epochs is None else (f"schedule.epochs={choices.epochs}",)
    recipe = overridden(data, (*asked, *choices.overrides))
    check_batch(recipe, count)
    spread = f"classes have {100 * shares.min():.1f} to {100 * shares.max():.1f} % of the pixels"
    lines = (
        f"{side} x {side} pixels, {found} superpixels; images are brought to a short side of {recipe.dense.short_side}",
        f"{length_of(recipe, count)}, {recipe.train.batch} crops a step; a falling rate from {recipe.optimizer.lr:g}",
        f"crops at {recipe.dense.scale[0]:g} to {recipe.dense.scale[1]:g} times the size, mirror images",
        f"{spread}: {'rare ones weigh more in the loss' if recipe.dense.class_balance else 'all pixels count alike'}",
        "encoder from the start; fusion and decoder begin random",
    )
    return Plan(recipe, lines)


def description(ready: Prepared, request: Request) -> list[str]:
    """The data and the plan in lines for people."""
    masked = ready.masked
    names = ", ".join(masked.class_names[:12]) + (", ..." if len(masked.class_names) > 12 else "")
    train, val = int((ready.split == TRAIN).sum()), int((ready.split == VAL).sum())
    origin = "as the data has it" if masked.split is not None else f"split off, seed {request.choices.seed}"
    return [
        f"data       {request.data} ({masked.kind}): {len(masked)} images, {len(masked.class_names)} classes: {names}",
        f"split      {train} to train, {val} to judge, {origin}; written to {run_folder.SPLIT}",
        *(f"note       {note}" for note in masked.notes),
        f"start      {'the bundled model' if request.model == BUNDLED else request.model}",
        *(f"plan       {line}" for line in ready.plan.lines),
        f"out        {request.out}",
    ]
