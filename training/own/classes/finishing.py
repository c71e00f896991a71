"""The end of a classifier's run: calibration, checkpoint, a verified .onnx, and the report."""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.errors import ExportError
from cast_sdk.export.onnx_export import export_onnx
from cast_sdk.models import save_native
from cast_sdk.runtime.runtime import Runtime
from cast_sdk.system.files import sha256
from cast_sdk.training.engine.progress import progress
from cast_sdk.training.engine.runlog import duration, read_log
from cast_sdk.training.metrics.accuracy import predictions
from cast_sdk.training.metrics.curve import draw_classification
from cast_sdk.training.own.classes.judging import PRECISION, Judged, disagreements, judge
from cast_sdk.training.own.classes.labelled import VAL
from cast_sdk.training.own.classes.preparing import Prepared, description
from cast_sdk.training.own.images import read_frame, reduced_size, stretched
from cast_sdk.training.own.page import Page, command_of
from cast_sdk.training.own.pictures import draw_confusion, draw_sheet
from cast_sdk.training.own.run_folder import GRAPH, MODEL, START
from cast_sdk.training.own.running import Request
from cast_sdk.training.own.splitting import write_rows
from cast_sdk.training.tasks.classification import Classification

log = logging.getLogger("cast_sdk.training")
VERIFIED_ON = 12  # photographs of the verification
RUN_ON = 2000  # images that the exported file is judged on
SHEET = 24
LISTED = 100  # classes in a table


def finish(task: Classification, ready: Prepared, request: Request) -> None:
    """Write `model.safetensors`, `model.onnx`, the pictures, `predictions.csv` and `report.html` to RUN.

    Raises:
        ExportError: when the exported file does not agree with the model.
    """
    out = request.out
    model: Any = (task.ema.model if task.ema else task.model).cpu().eval()
    views = task.validation
    logits, labels = predictions(model, views)
    judged = judge(logits, labels)
    model.spec = dataclasses.replace(
        model.spec,
        temperature=judged.temperature,
        unsure_below=judged.unsure_below,
        licence="",
        source=f"cast-train classify, {datetime.date.today().isoformat()}",
    )
    save_native(model, out / MODEL)
    log.info("right on %.1f %% of %d images that judge, %.1f %% by class",
             judged.accuracy, len(labels), judged.balanced_accuracy)  # fmt: skip
    chosen = ready.chosen(VAL)
    files = [ready.images.places[at][0] for at in chosen if ready.images.places[at][1] < 0]
    some = [files[at] for at in np.linspace(0, len(files) - 1, min(VERIFIED_ON, len(files))).astype(int)]
    log.info("exporting to %s", out / GRAPH)
    export_onnx(model, out / GRAPH, images=some or None, checkpoint_sha256=sha256(out / MODEL), say=log.debug)
    exported = run_exported(out / GRAPH, ready, logits)
    log.info("%s: %.1f %% right on %d images, the same classes as in training", GRAPH, exported["accuracy"],
             exported["images"])  # fmt: skip
    write_predictions(out / "predictions.csv", ready, judged)
    write_report(task, ready, request, judged, exported)
    log.info("report: %s", out / "report.html")
    log.info("run it: %s", command_of(out / GRAPH))


def run_exported(graph: Path, ready: Prepared, logits: npt.NDArray[np.floating]) -> dict[str, Any]:
    """Run the file as applications run it, on the files themselves.

    Returns:
        `images`, `accuracy` in percent, and `different`: answers other than the model's that are no tie.

    Raises:
        ExportError: when there are any of those.
    """
    chosen = ready.chosen(VAL)
    picked = np.unique(np.linspace(0, len(chosen) - 1, min(RUN_ON, len(chosen))).astype(int))
    scores = []
    with Runtime(str(graph)) as runtime:
        for place in progress(picked, "running the exported file", len(picked)):
            scores.append(runtime.segment(read_frame(ready.images, int(chosen[place]))).outputs["logits"])
    other = np.stack(scores)
    different = disagreements(logits[picked], other)
    if different:
        raise ExportError(
            f"{graph} names another class than the model for {different} of {len(picked)} images.",
            remedy="this should not happen: keep the folder and report it; the checkpoint is whole",
        )
    labels = ready.images.labels[chosen[picked]]
    return {
        "images": len(picked),
        "accuracy": 100 * float((other.argmax(1) == labels).mean()),
        "different": different,
    }


def write_predictions(path: Path, ready: Prepared, judged: Judged) -> None:
    """A line for each image that judges: path, class, predicted class, its probability, that of the true class."""
    classes, chosen = ready.images.classes, ready.chosen(VAL)
    chances = judged.probabilities
    rows = [
        (ready.images.names[at], classes[label], classes[guess], f"{chance[guess]:.4f}", f"{chance[label]:.4f}")
        for at, guess, label, chance in zip(chosen, judged.predicted, judged.labels, chances, strict=True)
    ]
    write_rows(path, ("path", "class", "predicted", "probability", "probability_of_class"), rows)


def write_report(
    task: Classification, ready: Prepared, request: Request, judged: Judged, exported: dict[str, Any]
) -> None:
    """`report.html` with `curve.png`, `confusion.png` and `worst.jpg` beside it and inside."""
    out, classes, chosen = request.out, ready.images.classes, ready.chosen(VAL)
    start = out / START
    before = json.loads(start.read_text())["top1"] if start.is_file() else None
    page = Page(f"{len(classes)} classes from {request.data.name}")
    page.text(f"{judged.accuracy:.1f} % right, {judged.balanced_accuracy:.1f} % by class", "big")
    error = 100 * np.sqrt(max(judged.accuracy * (100 - judged.accuracy), 0) / 1e4 / len(chosen))
    rows = [
        ("accuracy", f"{judged.accuracy:.1f} % of {len(chosen)} images that judge (standard error {error:.1f})"),
        ("balanced accuracy", f"{judged.balanced_accuracy:.1f} %, the mean over the classes"),
        ("by chance", f"{100 * np.bincount(judged.labels).max() / len(chosen):.1f} %, always naming the largest class"),
    ]
    if before is not None:
        rows.append(("before fine-tuning", f"{before:.1f} %, a linear probe of the frozen model"))
    seconds = read_log(out, "end")[-1]["seconds"]
    rows += [
        ("exported file", f"{exported['accuracy']:.1f} % of {exported['images']} images, the same classes ({GRAPH})"),
        ("training time", duration(seconds)),
    ]
    page.table((), rows)
    page.text("The images that judge chose neither the weights nor the length of the training.")
    page.heading("What was done")
    page.table((), [line.split(maxsplit=1) for line in description(ready, request)])
    page.heading("Curve")
    draw_classification(out, out / "curve.png", request.data.name, before)
    page.picture(out / "curve.png", "training loss and accuracy on the images that judge")
    page.heading("Classes")
    shown = draw_confusion(judged.confusion, classes, out / "confusion.png")
    page.text(f"Rows are true classes, columns what they were taken for; {shown}.")
    page.picture(out / "confusion.png", "confusion matrix")
    page.table(("class", "training images", "judging", "found"), class_rows(ready, judged))
    if len(classes) > LISTED:
        page.text(f"The {LISTED} classes that are found least; all images are in predictions.csv.")
    _confidence(page, judged)
    worst = judged.worst(SHEET)
    page.heading("Worst images")
    if len(worst):
        tiles = [_tile(ready, judged, int(chosen[at]), int(at)) for at in worst]
        draw_sheet(tiles, out / "worst.jpg")
        page.text("Green: the class they have in the data. Red: what they were taken for. Look for wrong labels here.")
        page.picture(out / "worst.jpg", "the images with the least probability of their class")
        page.table(
            ("image", "class", "taken for"),
            [
                (ready.images.names[chosen[at]], classes[judged.labels[at]], classes[judged.predicted[at]])
                for at in worst
            ],
        )
    else:
        page.text("None of the images that judge is wrong.")
    page.how_to_use(out / GRAPH, "seg.top(3), seg.unsure")
    page.write(out / "report.html")


def class_rows(ready: Prepared, judged: Judged) -> list[tuple[str, int, int, str]]:
    """Class, training images, judging images and share found, the least found first; at most LISTED."""
    count = len(ready.images.classes)
    train = np.bincount(ready.images.labels[ready.split != VAL], minlength=count)
    val = np.bincount(judged.labels, minlength=count)
    recalls = judged.recalls
    order = np.argsort(np.where(np.isnan(recalls), 200, recalls), kind="stable")[:LISTED]
    return [
        (
            ready.images.classes[at],
            int(train[at]),
            int(val[at]),
            "not judged" if np.isnan(recalls[at]) else f"{recalls[at]:.0f} %",
        )
        for at in order
    ]


def _confidence(page: Page, judged: Judged) -> None:
    page.heading("How far to trust it")
    if judged.calibration is None or judged.named is None:
        page.text(f"Too few images ({len(judged.labels)}) to calibrate probabilities: read them as an order only.")
        return
    found = judged.calibration
    page.text(
        f"Probabilities are calibrated (temperature {judged.temperature:.2f}, calibration error "
        f"{100 * found['ece_before']:.1f} % before, {100 * found['ece_after']:.1f} % with the fitted temperature, "
        "read on the same images)."
    )
    if judged.unsure_below:
        page.text(
            f"Below {judged.unsure_below:.2f} the model says unsure (seg.unsure): above it, {100 * PRECISION:.0f} % of "
            "its names were right. Things of none of the classes were not among the images; see training/calibrate.py."
        )
    else:
        page.text(f"Every image gets a name: no threshold was needed or able to make {100 * PRECISION:.0f} % right.")
    rows = [
        (
            f"{row['unsure_below']:.1f}",
            f"{100 * (row['named'] or 0):.0f} %",
            "" if row["right"] is None else f"{100 * row['right']:.0f} %",
        )
        for row in judged.named
    ]
    page.table(("named from", "images named", "of these right"), rows)


def _tile(ready: Prepared, judged: Judged, image: int, row: int) -> tuple[Any, str, str]:
    frame = read_frame(ready.images, image)
    classes, guess = ready.images.classes, int(judged.predicted[row])
    chance = judged.probabilities[row, guess]
    picture = stretched(frame, reduced_size(frame.shape[0], frame.shape[1], 160))
    return picture, classes[judged.labels[row]], f"{classes[guess]} ({100 * chance:.0f} %)"
