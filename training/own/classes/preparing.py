"""Labelled images before a run: found, looked at, split, planned for, described."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.models import load_model
from cast_sdk.system.files import sha256
from cast_sdk.training.data.dataset import OnBadImage
from cast_sdk.training.data.taxonomy import taxonomy_for
from cast_sdk.training.engine import provenance
from cast_sdk.training.engine.models import BUNDLED, start_file
from cast_sdk.training.own import run_folder
from cast_sdk.training.own.classes.labelled import TRAIN, VAL, Labelled, find_labelled
from cast_sdk.training.own.classes.planning import Plan, plan_classification
from cast_sdk.training.own.images import Survey, look_at
from cast_sdk.training.own.running import Request
from cast_sdk.training.own.splitting import copies, split_off
from cast_sdk.training.tasks.classification import Classification


@dataclass
class Prepared:
    """Data that was looked at and split, and the plan made for it."""

    images: Labelled
    survey: Survey
    split: npt.NDArray[np.int8]
    plan: Plan
    made_by: dict[str, Any]

    def chosen(self, part: int) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self.split == part)


def prepare(request: Request) -> Prepared:
    """Find, look at and split the images, and plan the run. Writes nothing."""
    images = find_labelled(request.data)
    survey = look_at(images)
    images, survey = _leave_out_bad(images, survey, request.on_bad_image)
    groups = copies(survey.contents)
    images.notes += notes_on_copies(images, groups)
    if images.split is None:
        split = split_off(images.labels, request.validation, request.choices.seed, groups)
    else:
        split = images.split
    _check_split(images, split)
    file = start_file(request.model)
    spec = load_model(file).spec
    if request.choices.taxonomy:
        taxonomy_for(request.choices.taxonomy, images.classes)  # refuses what does not fit, before long work
    init = BUNDLED if request.model == BUNDLED else run_folder.absolute(request.model)
    plan = plan_classification(spec, init, images.labels[split == TRAIN], survey.short_side, request.choices)
    Classification.check(plan.recipe)
    made_by = {
        "program": "classify",
        "data": str(request.data.resolve()),
        "fingerprint": provenance.fingerprint(
            (*zip(images.names, images.labels.tolist(), split.tolist(), survey.contents, strict=True),)
        ),
        "model": sha256(file) if Path(file).is_file() else request.model,
        "recipe": plan.recipe.to_dict(),
    }
    return Prepared(images, survey, split, plan, made_by)


def notes_on_copies(images: Labelled, groups: npt.NDArray[np.int64]) -> list[str]:
    """What to tell of files with the same content."""
    _, counts = np.unique(groups, return_counts=True)
    if (counts == 1).all():
        return []
    pairs = np.unique(np.stack([groups, images.labels], 1), axis=0)
    repeated, classes = np.unique(pairs[:, 0], return_counts=True)
    torn = repeated[classes > 1]
    extra = int((counts - 1).sum())
    notes = [f"copies of other images ({extra}): those in one class stay on one side of a split made here"]
    if len(torn):
        first = [images.names[at] for at in np.flatnonzero(groups == torn[0])[:2]]
        notes.append(f"images that lie in two classes at once ({len(torn)}), such as {' and '.join(first)}")
    return notes


def _leave_out_bad(images: Labelled, survey: Survey, on_bad: OnBadImage) -> tuple[Labelled, Survey]:
    if not survey.bad:
        return images, survey
    first = next(iter(survey.bad))
    listed = ", ".join(images.names[at] for at in list(survey.bad)[:5])
    if on_bad == "error":
        raise InputError(
            f"{len(survey.bad)} of {len(images)} images cannot be read: {listed}.",
            found=survey.bad[first],
            remedy="replace or remove them, or leave them out with --on-bad-image skip",
        )
    before = set(images.labels.tolist())
    kept = images.without(list(survey.bad))
    lost = sorted(images.classes[label] for label in before - set(kept.labels.tolist()))
    if lost:
        raise InputError(
            f"No image of {', '.join(lost[:6])} can be read.", remedy="replace the images, or remove the class"
        )
    kept.notes.append(f"unreadable images are left out ({len(survey.bad)}): {listed}")
    contents = [mark for at, mark in enumerate(survey.contents) if at not in survey.bad]
    return kept, Survey(survey.heights, survey.widths, contents, {})


def _check_split(images: Labelled, split: npt.NDArray[np.int8]) -> None:
    if not (split == VAL).any():
        raise InputError(
            f"Every class of {images.root} has a single image, so none is left to judge by.",
            found=f"{len(images)} images of {len(images.classes)} classes",
            remedy="add images: two of a class are the least, twenty make a useful model",
        )
    alone = np.bincount(images.labels[split == VAL], minlength=len(images.classes)) == 0
    if alone.any():
        names = [name for name, missing in zip(images.classes, alone, strict=True) if missing]
        images.notes.append(f"classes without an image that judges ({len(names)}): {', '.join(names[:6])}")


def description(ready: Prepared, request: Request) -> list[str]:
    """The data and the plan in lines for people."""
    images, survey = ready.images, ready.survey
    train, val = len(ready.chosen(TRAIN)), len(ready.chosen(VAL))
    origin = "as the data has it" if images.split is not None else f"split off by class, seed {request.choices.seed}"
    return [
        f"data       {request.data} ({images.kind}): {len(images)} images of {len(images.classes)} classes, "
        f"short side {survey.short_side} pixels (median)",
        f"split      {train} to train, {val} to judge, {origin}; written to {run_folder.SPLIT}",
        *(f"note       {note}" for note in images.notes),
        f"start      {'the bundled model' if request.model == BUNDLED else request.model}",
        *(f"plan       {line}" for line in ready.plan.lines),
        f"out        {request.out}",
    ]
