"""`cast-train evaluate`: a classifier on labelled images, run as applications run it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from cast_sdk.errors import InputError
from cast_sdk.runtime.runtime import Runtime
from cast_sdk.system.files import read_csv
from cast_sdk.training.data.dataset import OnBadImage
from cast_sdk.training.engine.progress import progress
from cast_sdk.training.own import run_folder
from cast_sdk.training.own.classes.judging import Judged
from cast_sdk.training.own.classes.labelled import TEST, TRAIN, VAL, Labelled, find_labelled
from cast_sdk.training.own.images import read_frame

SPLITS = {"train": TRAIN, "val": VAL, "test": TEST}

log = logging.getLogger("cast_sdk.training")


def evaluate(runtime: Runtime, data: Path, split: str = "all", on_bad: OnBadImage = "error") -> dict[str, Any]:
    """Accuracies in percent.

    Args:
        runtime: an open classifier.
        data: what `find_labelled` reads, or the split.csv of a run on shards; its classes are a part of the model's, by
            name.
        split: "all", "train", "val" or "test".
        on_bad: whether unreadable images are refused, or left out and noted.

    Returns:
        `images`, `notes` of what was left out, `accuracy`, `balanced_accuracy`, and of each class `images`, `found`.

    Raises:
        InputError: for classes that the model does not know, a split that the data does not have, or images that cannot
            be read.
    """
    images = of_shards(data) or find_labelled(data, least=1, judging=True)
    for note in images.notes:
        log.info("note       %s", note)
    chosen = np.arange(len(images))
    if split != "all":
        if images.split is None:
            raise InputError(f"{data} has no split.", remedy="leave --split out")
        chosen = np.flatnonzero(images.split == SPLITS[split])
        if not len(chosen):
            there = {name: int((images.split == part).sum()) for name, part in SPLITS.items()}
            raise InputError(
                f"{data} has no images of the split {split}.",
                found=", ".join(f"{count} of {name}" for name, count in there.items() if count),
                remedy="choose another --split, or leave it out",
            )
    known = runtime.spec.class_names
    if not known or not runtime.spec.has_logits:
        raise InputError(
            f"{runtime.path} knows no class names.", remedy="evaluate a classifier, such as RUN/model.onnx"
        )
    number = {name: at for at, name in enumerate(known)}
    unknown = [images.classes[at] for at in np.unique(images.labels[chosen]) if images.classes[at] not in number]
    if unknown:
        raise InputError(
            f"{len(unknown)} classes of {data} are none of the model's: {', '.join(unknown[:6])}.",
            found=f"the model knows {', '.join(known[:6])}{', ...' if len(known) > 6 else ''}",
            remedy="name the class folders as the model's classes, or leave the others out",
        )
    scores, bad = {}, []
    for at in progress(chosen.tolist(), "running the model", len(chosen)):
        try:
            frame = read_frame(images, at)
        except InputError:
            if on_bad == "error":
                raise
            bad.append(images.names[at])
            continue
        scores[at] = runtime.segment(frame).outputs["logits"]
    chosen = np.array(list(scores), np.intp)
    if bad:
        images.notes.append(f"unreadable images are left out ({len(bad)}): {', '.join(bad[:5])}")
        log.info("note       %s", images.notes[-1])
    if not scores:
        raise InputError(
            f"None of the {len(bad)} images of {data} can be read.",
            remedy="see why each cannot with --on-bad-image error",
        )
    translated = np.array([number.get(name, -1) for name in images.classes])
    judged = Judged(np.stack(list(scores.values())), translated[images.labels[chosen]])
    counts = np.bincount(judged.labels, minlength=len(known))
    return {
        "model": str(runtime.path),
        "images": len(chosen),
        "notes": images.notes,
        "accuracy": judged.accuracy,
        "balanced_accuracy": judged.balanced_accuracy,
        "classes": {
            known[at]: {"images": int(counts[at]), "found": float(judged.recalls[at])} for at in np.flatnonzero(counts)
        },
    }


def of_shards(table: Path) -> Labelled | None:
    """The images and the split of a run on shards, whose split.csv names no files; None for other data.

    Raises:
        InputError: for shards that are not there any more, or not the same.
    """
    record = run_folder.made_by(table.parent) if table.name == run_folder.SPLIT and table.is_file() else None
    if record is None or record.get("program") != "classify" or not list(Path(record["data"]).glob("train-*.tar")):
        return None
    images = find_labelled(Path(record["data"]))
    part = {name: SPLITS[split] for name, _, split in read_csv(table)[1:]}
    kept = images.without([at for at, name in enumerate(images.names) if name not in part])
    if len(kept) < len(part):
        raise InputError(
            f"{len(part) - len(kept)} images of {table} are not in {record['data']} any more.",
            remedy="evaluate on the shards themselves, or on a folder",
        )
    kept.split = np.array([part[name] for name in kept.names], np.int8)
    return kept
