"""The end of a segmenter's run: checkpoint, a verified .onnx, and the report."""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cast_sdk.export.onnx_export import export_onnx
from cast_sdk.models import save_native
from cast_sdk.runtime.runtime import Runtime
from cast_sdk.system.files import sha256
from cast_sdk.training.engine.distributed import World
from cast_sdk.training.engine.progress import progress
from cast_sdk.training.engine.runlog import duration, read_log
from cast_sdk.training.metrics.dense_pictures import draw_curve, draw_examples, palette
from cast_sdk.training.metrics.semantic import ConfusionMatrix
from cast_sdk.training.own.classes.labelled import VAL
from cast_sdk.training.own.dense.base import OwnSplit
from cast_sdk.training.own.dense.preparing import Prepared, description
from cast_sdk.training.own.page import Page, command_of
from cast_sdk.training.own.pictures import draw_confusion
from cast_sdk.training.own.run_folder import GRAPH, MODEL
from cast_sdk.training.own.running import Request
from cast_sdk.training.tasks.dense import Inference, evaluate, predict
from cast_sdk.training.tasks.segmentation import Segmentation

log = logging.getLogger("cast_sdk.training")
EXAMPLES = 6
VERIFIED_ON = 12  # photographs of the verification


def finish(task: Segmentation, ready: Prepared, request: Request) -> None:
    """Write `model.safetensors`, `model.onnx`, the pictures and `report.html` to RUN."""
    out, judging = request.out, task.validation
    model: Any = task.model.cpu().eval()
    model.spec = dataclasses.replace(
        model.spec, licence="", source=f"cast-train segment, {datetime.date.today().isoformat()}"
    )
    save_native(model, out / MODEL)
    config = task.recipe.dense
    windows = evaluate(model, judging, Inference(config, config.stride), World())
    log.info("mean IoU %.1f %% over %d images that judge", 100 * windows.mean_iou(), windows.images)
    files = [pair.image for pair in judging.pairs]
    some = [files[at] for at in np.linspace(0, len(files) - 1, min(VERIFIED_ON, len(files))).astype(int)]
    log.info("exporting to %s", out / GRAPH)
    export_onnx(model, out / GRAPH, images=some, checkpoint_sha256=sha256(out / MODEL), say=log.debug)
    exported, scores = run_exported(str(out / GRAPH), judging)
    log.info("%s: mean IoU %.1f %%, whole images in one pass", GRAPH, 100 * exported.mean_iou())
    write_report(task, ready, request, windows, exported, scores)
    log.info("report: %s", out / "report.html")
    log.info("run it: %s", command_of(out / GRAPH))


def run_exported(graph: str, judging: OwnSplit | Any) -> tuple[ConfusionMatrix, npt.NDArray[np.float64]]:
    """Run the file as applications run it: its confusion matrix, and the share of right pixels of each image."""
    confusion, shares = ConfusionMatrix(len(judging.class_names)), []
    with Runtime(graph) as runtime:
        for at in progress(range(len(judging)), "running the exported file", len(judging)):
            image, label = judging.read(at)
            found = runtime.segment(np.ascontiguousarray(image[..., ::-1])).semantic
            assert found is not None
            confusion.update(found, label)
            counted = label < len(judging.class_names)
            shares.append(float((found == label)[counted].mean()) if counted.any() else 1.0)
    return confusion, np.array(shares)


def write_report(
    task: Segmentation,
    ready: Prepared,
    request: Request,
    windows: ConfusionMatrix,
    exported: ConfusionMatrix,
    scores: npt.NDArray[np.float64],
) -> None:
    """`report.html` with `curve.png`, `confusion.png`, `examples.jpg` and `worst.jpg` beside it and inside."""
    out, judging, names = request.out, task.validation, ready.masked.class_names
    page = Page(f"{len(names)} classes in the images of {request.data.name}")
    page.text(f"mean IoU {100 * windows.mean_iou():.1f} %", "big")
    common = ConfusionMatrix(len(names))
    common.matrix[:, int(ready.pixels.argmax())] = windows.matrix.sum(1)
    seconds = read_log(out, "end")[-1]["seconds"]
    rows = [
        (
            "windows over the image",
            f"mean IoU {100 * windows.mean_iou():.1f} %, {_pixels(windows)} of the pixels right",
        ),
        (
            "exported file, one pass",
            f"mean IoU {100 * exported.mean_iou():.1f} %, {_pixels(exported)} of the pixels right ({GRAPH})",
        ),
        ("always the commonest class", f"mean IoU {100 * common.mean_iou():.1f} %, {_pixels(common)} right"),
        ("images that judge", f"{windows.images} of {len(ready.split)}"),
        ("training time", duration(seconds)),
    ]
    page.table((), rows)
    page.text("The images that judge chose neither the weights nor the length of the training.")
    page.heading("What was done")
    page.table((), [line.split(maxsplit=1) for line in description(ready, request)])
    page.heading("Curve")
    draw_curve(out, out / "curve.png")
    page.picture(out / "curve.png", "training loss and mean IoU on the images that judge")
    page.heading("Classes")
    shown = draw_confusion(windows.matrix, names, out / "confusion.png", share_only=True)
    page.text(f"Share of the pixels of a class (row) that got each class (column); {shown}.")
    page.picture(out / "confusion.png", "confusion matrix")
    total = max(1, int(ready.pixels.sum()))
    order = np.argsort(np.nan_to_num(windows.iou, nan=2.0), kind="stable")
    page.table(
        ("class", "share of pixels", "IoU"),
        [
            (
                names[at],
                f"{100 * ready.pixels[at] / total:.1f} %",
                "not judged" if np.isnan(windows.iou[at]) else f"{100 * windows.iou[at]:.0f} %",
            )
            for at in order
        ],
    )
    inference = Inference(task.recipe.dense, task.recipe.dense.stride)
    even = np.unique(np.linspace(0, len(judging) - 1, min(EXAMPLES, len(judging))).astype(int))
    page.heading("Examples")
    _draw(task, inference, even, out / "examples.jpg", _captions(ready, scores, even))
    page.picture(out / "examples.jpg", "photographs, masks and predictions")
    page.heading("Worst images")
    page.text("The images with the fewest right pixels. Look for wrong masks here.")
    worst = np.argsort(scores, kind="stable")[:EXAMPLES]
    _draw(task, inference, worst, out / "worst.jpg", _captions(ready, scores, worst))
    page.picture(out / "worst.jpg", "the images with the fewest right pixels")
    page.how_to_use(out / GRAPH, "seg.semantic")
    page.write(out / "report.html")


def _pixels(confusion: ConfusionMatrix) -> str:
    return f"{100 * confusion.pixel_accuracy:.1f} %"


def _captions(ready: Prepared, scores: npt.NDArray[np.float64], chosen: npt.NDArray[np.integer]) -> list[str]:
    """File and score of some images that judge."""
    names = [ready.masked.names[at] for at in np.flatnonzero(ready.split == VAL)]
    return [f"{names[at]}: {100 * scores[at]:.0f} % right in one pass" for at in chosen]


def _draw(
    task: Segmentation,
    inference: Inference,
    chosen: npt.NDArray[np.integer],
    file: Path,
    captions: Sequence[str],
) -> None:
    split, examples = task.validation, []
    for at in chosen:
        image, label = split.read(int(at))
        examples.append((image, label, predict(task.model, image, inference)))  # type: ignore[arg-type]
    draw_examples(examples, split, palette(split), file, captions)
