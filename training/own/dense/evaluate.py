"""`cast-train evaluate` on masks: a segmenter on labelled images, run as applications run it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import InputError
from cast_sdk.runtime.runtime import Runtime
from cast_sdk.system.files import read_csv
from cast_sdk.training.data.dataset import OnBadImage
from cast_sdk.training.data.dense.base import IGNORE
from cast_sdk.training.engine.progress import progress
from cast_sdk.training.metrics.semantic import ConfusionMatrix
from cast_sdk.training.own import run_folder
from cast_sdk.training.own.classes.labelled import TRAIN, VAL
from cast_sdk.training.own.dense.base import Masked, Unlabelled, split_of
from cast_sdk.training.own.dense.finding import find_masked

SPLITS = {"train": TRAIN, "val": VAL}

log = logging.getLogger("cast_sdk.training")


def evaluate(
    runtime: Runtime,
    data: Path,
    split: str = "all",
    unlabelled: Unlabelled | None = None,
    on_bad: OnBadImage = "error",
) -> dict[str, Any]:
    """Whole images in one pass: mean intersection over union and right pixels, in percent.

    Args:
        runtime: an open segmenter.
        data: what `find_masked` reads, or the split.csv of a run; its classes are a part of the model's, by name.
        split: "all", "train" or "val".
        unlabelled: what pixels outside of all polygons are; None: as in the run, or background.
        on_bad: whether unreadable images and masks are refused, or left out and noted.

    Returns:
        `images`, `notes` of what was left out, `mean_iou`, `pixel_accuracy`, and of each class its share of the
        `pixels` and its `iou` (None where neither map has it).

    Raises:
        InputError: for classes that the model does not know, a split that the data does not have, or a mask that cannot
            be read.
    """
    table = data.suffix.lower() == ".csv" and data.is_file()
    masked = of_run(data, unlabelled) if table else find_masked(data, unlabelled or "background")
    for note in masked.notes:
        log.info("note       %s", note)
    chosen = np.arange(len(masked))
    if split != "all":
        if split not in SPLITS or masked.split is None or not (masked.split == SPLITS[split]).any():
            raise InputError(
                f"{data} has no images of the split {split}.",
                found="no split" if masked.split is None else None,
                remedy="give RUN/split.csv for the split of a run, leave --split out, or choose one that is there"
                if masked.split is None
                else "choose train or val",
            )
        chosen = np.flatnonzero(masked.split == SPLITS[split])
    if on_bad == "skip":
        chosen = readable(masked, chosen)
    known = runtime.spec.class_names
    number = {name: at for at, name in enumerate(known)}
    images = split_of(masked, chosen)
    confusion = ConfusionMatrix(len(known))
    to_model = np.array([number.get(name, -1) for name in masked.class_names])
    for at in progress(range(len(images)), "running the model", len(images)):
        image, label = images.read(at)
        counted = label != IGNORE
        unknown = [masked.class_names[value] for value in np.unique(label[counted]) if to_model[value] < 0]
        if unknown:
            raise InputError(
                f"The masks of {data} have a class that the model does not know: {', '.join(unknown)}.",
                found=f"the model knows {', '.join(known[:6])}{', ...' if len(known) > 6 else ''}",
                remedy="name the classes as the model's (index PNG: in classes.txt); pixels of 255 do not count",
            )
        found = runtime.segment(np.ascontiguousarray(image[..., ::-1])).semantic
        assert found is not None
        confusion.update(found[counted], to_model[label[counted]])
    iou, total = confusion.iou, max(1, int(confusion.matrix.sum()))
    return {
        "model": str(runtime.path),
        "images": len(chosen),
        "notes": masked.notes,
        "mean_iou": 100 * confusion.mean_iou(),
        "pixel_accuracy": 100 * confusion.pixel_accuracy,
        "classes": {
            name: {
                "pixels": float(100 * confusion.matrix[at].sum() / total),
                "iou": None if np.isnan(iou[at]) else float(100 * iou[at]),
            }
            for at, name in enumerate(known)
        },
    }


def of_run(table: Path, unlabelled: Unlabelled | None = None) -> Masked:
    """The images with masks of a run of `cast-train segment`, with its split.

    Args:
        table: its split.csv.
        unlabelled: what pixels outside of all polygons are; None: as in the run.

    Raises:
        InputError: for a table of something else, or data that is not there any more.
    """
    record = run_folder.made_by(table.parent) or {}
    if table.name != run_folder.SPLIT or record.get("program") != "segment":
        raise InputError(
            f"{table} is not the split of a run of cast-train segment.",
            remedy="give RUN/split.csv, or images with masks",
        )
    masked = find_masked(Path(record["data"]), unlabelled or record["unlabelled"])
    part = {name: SPLITS[split] for name, split in read_csv(table)[1:]}
    used = np.array([at for at, name in enumerate(masked.names) if name in part], np.intp)
    if len(used) < len(part):
        raise InputError(
            f"{len(part) - len(used)} images of {table} are not in {record['data']} any more.",
            remedy="evaluate on a folder of images and masks",
        )
    split = np.array([part[masked.names[at]] for at in used], np.int8)
    return dataclasses.replace(masked.only(used), split=split)


def readable(masked: Masked, chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The chosen images without those that cannot be read, which are noted.

    Raises:
        InputError: when none can.
    """
    whole, bad = split_of(masked, chosen), []
    for at in progress(range(len(whole)), "looking at the images", len(whole)):
        try:
            whole.read(at)
        except InputError:
            bad.append(at)
    if len(bad) == len(chosen):
        raise InputError(
            f"None of the {len(bad)} images can be read.", remedy="see why each cannot with --on-bad-image error"
        )
    if bad:
        names = ", ".join(masked.names[at] for at in chosen[bad[:5]])
        masked.notes.append(f"unreadable images are left out ({len(bad)}): {names}")
        log.info("note       %s", masked.notes[-1])
    return np.delete(chosen, bad)
