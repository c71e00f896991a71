"""Make a classifier's probabilities honest, and let it say "unsure": temperature and threshold, written into the model.

    python training/calibrate.py --model cast_tiny.safetensors --data DATA --split val \\
        --photographs PHOTOGRAPHS --out calibrated.safetensors

The temperature is fitted to the images of a split that were not trained on. The threshold is the lowest at which
names are right in --precision of the cases on photographs whose names end in `_WNID.jpg`: those of classes that the
model does not know belong among them, and every name it gives them counts as wrong. Every second photograph is kept
apart, and the result is stated for those; what several thresholds would do is printed for all.
`python -m cast_sdk.training.calibrate` is the same program.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.runtime.commands.common import FiniteRange, OrdinaryPath
from cast_sdk.runtime.commands.program import Command
from cast_sdk.system.files import read_text

if TYPE_CHECKING:
    from cast_sdk.models import Model
    from cast_sdk.training.data.sources import ImageSource

FILE = OrdinaryPath(path_type=Path, exists=True, dir_okay=False)
FOLDER = OrdinaryPath(path_type=Path, exists=True, file_okay=False)


@click.command(cls=Command, help=(__doc__ or "").partition("\n")[0])
@click.option("--model", "path", type=FILE, required=True, help="Checkpoint of a classifier.")
@click.option("--data", type=FOLDER, required=True, help="Folder with the split and classes.txt.")
@click.option("--split", default="val", show_default=True, help="Images to fit the temperature to.")
@click.option("--photographs", type=FOLDER, help="Photographs to choose the threshold on; without: no threshold.")
@click.option(
    "--precision",
    type=FiniteRange(0, 1),
    default=0.8,
    show_default=True,
    help="Share of right names that is wanted.",
)
@click.option("--unsure-below", "given", type=FiniteRange(0, 1), help="Write this threshold in place of the one that "
              "is chosen, and state the names at it.")  # fmt: skip
@click.option("--report", multiple=True, metavar="SPLIT", help="Also state the names of this split. Repeatable.")
@click.option("--out", type=OrdinaryPath(path_type=Path, dir_okay=False), required=True, help=".safetensors to write.")
def main(
    path: Path,
    data: Path,
    split: str,
    photographs: Path | None,
    precision: float,
    given: float | None,
    report: tuple[str, ...],
    out: Path,
) -> None:
    import torch

    from cast_sdk.errors import InputError
    from cast_sdk.models import load_model, save_native
    from cast_sdk.training.data.sources import open_source
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.metrics.calibration import THRESHOLDS, naming

    thresholds = sorted({*THRESHOLDS, *([] if given is None else [given])})
    with errors_for_people():
        if out.exists():
            raise InputError(f"{out} is there already.", remedy="give --out another name, or move the file away")
        model = load_model(path)
        held_out = open_source(data, split)
        results = fit(model, held_out)
        confidence, correct = _scores(model, held_out)
        results["images_named"] = naming(confidence, correct, thresholds=thresholds)
        for other in report:
            confidence, correct = _scores(model, open_source(data, other))
            results[f"{other}_named"] = naming(confidence, correct, thresholds=thresholds)
        if photographs is not None:
            source = photograph_source(photographs, data / "classes.txt")
            results |= be_unsure(model, source, precision)
            confidence, correct = _scores(model, source)
            results["photographs_named"] = naming(confidence, correct, source.labels >= 0, thresholds=thresholds)
        if given is not None:
            model.spec = dataclasses.replace(model.spec, unsure_below=given)
            results["written"] = given
        save_native(model, out, torch.float16)
        print(json.dumps(results, indent=1))


def fit(model: Model, source: ImageSource) -> dict[str, Any]:
    """Fit the temperature of `model.spec` to the images; returns it with the calibration error before and after.

    Where the fitted one does not lower that error, the temperature stays 1.
    """
    from cast_sdk.training.metrics.calibration import calibrated

    logits, labels = _predict(model, source)
    results = calibrated(logits, labels)
    model.spec = dataclasses.replace(model.spec, temperature=results["temperature"])
    return results


def be_unsure(model: Model, source: ImageSource, precision: float = 0.8) -> dict[str, Any]:
    """Choose the threshold of `model.spec` on every second photograph; returns what it does on the others.

    `named` is the share of photographs that get a name, `precision` the share of right ones among them.
    """
    from cast_sdk.training.metrics.calibration import choose_threshold

    confidence, correct = _scores(model, source)
    chosen = choose_threshold(confidence[::2], correct[::2], precision)
    threshold = round(chosen.unsure_below, 4)
    model.spec = dataclasses.replace(model.spec, unsure_below=threshold)
    apart, right = confidence[1::2], correct[1::2]
    named = apart >= threshold
    known = source.labels >= 0
    return {
        "unsure_below": threshold,
        "chosen_on": len(confidence[::2]),
        "named": float(named.mean()),
        "precision": float(right[named].mean()) if named.any() else None,
        "kept_apart": len(apart),
        "known_photographs": int(known.sum()),
        "top1_of_known": float(correct[known].mean()) if known.any() else None,
    }


def photograph_source(folder: Path, classes: Path) -> ImageSource:
    """Photographs named `..._WNID.jpg`, with the label of their class in `classes.txt`, or -1 for another one.

    Raises:
        InputError: when there is no such photograph or list of classes.
    """
    import numpy as np

    from cast_sdk.errors import InputError
    from cast_sdk.images import images_in
    from cast_sdk.training.data.sources import ImageSource

    if not classes.is_file():
        raise InputError(f"{classes} does not exist.", remedy="one class a line: WNID, tab, name")
    names = [line.split("\t")[0] for line in read_text(classes).splitlines() if line.strip()]
    label = {wnid: number for number, wnid in enumerate(names)}
    files = images_in(folder)
    labels = np.array([label.get(path.stem.rpartition("_")[2], -1) for path in files], np.int64)
    if not (labels >= 0).any():
        raise InputError(
            f"{folder} holds no photograph of a class in {classes.name}.", remedy="name photographs NUMBER_WNID.jpg"
        )
    return ImageSource(folder, "", [(str(path), -1, 0) for path in files], labels, [str(path) for path in files], names)


def _predict(model: Model, source: ImageSource) -> Any:
    from cast_sdk.training.data.dataset import Images
    from cast_sdk.training.metrics.accuracy import evaluation_views, predictions

    return predictions(model, evaluation_views(model.spec, Images(source), "stretch"))


def _scores(model: Model, source: ImageSource) -> Any:
    """Calibrated probability of the best class of each image, and whether it is the label."""
    from cast_sdk.training.metrics.calibration import best_class

    logits, labels = _predict(model, source)
    return best_class(logits, labels, model.spec.temperature)


if __name__ == "__main__":
    main()
