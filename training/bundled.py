"""Train, judge and write the bundled model within a given time: one command for a machine with a GPU.

    python training/prepare_data.py pack --data DATA --out bundled.tar.xz
    python training/bundled.py --data bundled.tar.xz --out runs/bundled
    python training/bundled.py --data DATA --out runs/bundled --minutes 60 --bsds BSDS500 --photographs imagenet_samples

Three quarters of the minutes go to training (supervised.py), with --bsds 6 in 10; a third of that to the recipe of
--finish, which goes on from the first one's weights. publish.py, calibrate.py, evaluate.py for each test split and
hierarchy.py have the rest, and what there was no time for is named. The same command goes on after an interruption, and
does what was left out. Writes OUT/cast_tiny.safetensors, README.md, curve.png, results.md and results.json; run/ and
finish/ hold the checkpoints. `python -m cast_sdk.training.bundled` is the same program.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.runtime.commands.common import FiniteRange, OrdinaryPath
from cast_sdk.runtime.commands.program import Command

if TYPE_CHECKING:
    from cast_sdk.training.engine.chain import Step

FOLDER = OrdinaryPath(path_type=Path, exists=True, file_okay=False)
TRAINING, BESIDE_LEVELS = 0.75, 0.6  # of the minutes; start, data and measurements have the rest
FINISHING = 1 / 3  # of the training, where a recipe finishes it
GPU_BATCH = 512  # a step of a model as small as this should take a GPU hardly longer than one of 128
MOST_MINUTES = 30_000  # three weeks; a process cannot be waited for longer than 35,791 minutes at once
TRAIN, FINISH, PUBLISH, CALIBRATE, LEVELS = "training", "finishing", "weights", "calibration", "levels"


@click.command(cls=Command, help=(__doc__ or "").partition("\n")[0])
@click.option("--data", type=OrdinaryPath(path_type=Path, exists=True), required=True,
              help="File of prepare_data.py pack, or the folder of a data set.")  # fmt: skip
@click.option("--out", type=OrdinaryPath(path_type=Path, file_okay=False), required=True,
              help="Folder; goes on with what it holds.")  # fmt: skip
@click.option(
    "--minutes",
    type=FiniteRange(0, MOST_MINUTES, min_open=True),
    default=10.0,
    show_default=True,
    help="For everything.",
)
@click.option("--recipe", default="tiny_bundled", show_default=True, help="Name in training/recipes, or a YAML file.")
@click.option(
    "--finish", metavar="RECIPE", help="Goes on from those weights, as tiny_bundled_128 does [default: none]."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a value of the recipe, or of both."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--workers", type=click.IntRange(0, 1024),
              help="Loader processes [default: one fewer than cores on a GPU, else 0].")  # fmt: skip
@click.option("--photographs", type=FOLDER, help="Photographs NUMBER_WNID.jpg to choose the threshold of names on.")
@click.option("--bsds", type=FOLDER, help="BSDS500: measure the levels on its validation images.")
def main(
    data: Path,
    out: Path,
    minutes: float,
    recipe: str,
    finish: str | None,
    overrides: tuple[str, ...],
    device: str,
    workers: int | None,
    photographs: Path | None,
    bsds: Path | None,
) -> None:
    begin = time.monotonic()
    from cast_sdk.errors import CastError
    from cast_sdk.system.files import lock, sha256
    from cast_sdk.system.processor import available_cores
    from cast_sdk.training.data.prepare import packing
    from cast_sdk.training.engine import provenance
    from cast_sdk.training.engine.chain import Chain
    from cast_sdk.training.engine.distributed import has_gpu
    from cast_sdk.training.engine.launch import errors_for_people
    from cast_sdk.training.engine.recipe.files import load_recipe
    from cast_sdk.training.own import run_folder

    with errors_for_people():
        gpu = has_gpu(device)
        names, shares = ([recipe, finish], [1 - FINISHING, FINISHING]) if finish else ([recipe], [1.0])
        for_all = (BESIDE_LEVELS if bsds else TRAINING) * minutes
        settings = [
            [*([f"train.batch={GPU_BATCH}"] if gpu else []), f"schedule.minutes={share * for_all:g}", *overrides]
            for share in shares
        ]
        planned = [load_recipe(name, own, "supervised") for name, own in zip(names, settings, strict=True)]
        packed = data.is_file()
        files = [] if packed else sorted(path for path in data.iterdir() if path.is_file())
        run_folder.claim(
            out,
            {
                "program": "bundled",
                "fingerprint": sha256(data) if packed else provenance.of_files((path.name, path) for path in files),
                "recipe": planned[0].to_dict(),
                **({"finish": planned[1].to_dict()} if finish else {}),
                **{name: str(path.resolve()) if path else "" for name, path in
                   (("photographs", photographs), ("bsds", bsds))},
            },
        )  # fmt: skip
        with (out / run_folder.FILE).open() as file:
            lock(file, out)
            chain = Chain(
                out / "steps.json", begin + 60 * minutes, lambda text: click.secho(f"== {text}", bold=True), file
            )
            if packed:
                chain.say(f"unpacking {data}")
                packing.unpack(data, out / "data")
                data = out / "data"
            if workers is None:
                workers = max(1, available_cores() - 1) if gpu else 0
            common = ["--device", "cuda" if gpu else "cpu", "--workers", workers]
            cache = [] if workers else ["--cache"]
            training = [
                ["--recipe", name, *(word for setting in own for word in ("--set", setting)), *common, *cache,
                 "--save-minutes", 1]
                for name, own in zip(names, settings, strict=True)
            ]  # fmt: skip
            chain.run(list(steps(data, out, planned[0].model.name, training, common, photographs, bsds)))
            record = packing.record_of(data)
            report = {
                "machine": machine(gpu, workers),
                "data": packing.summary(record) if record else f"the whole data set {data}",
                **chain.finished,
                "left out": chain.left_out,
                "failed": chain.failed,
            }
            write(out, report)
        if chain.failed:
            failed = ", ".join(chain.failed)
            raise CastError(
                f"{len(chain.failed)} steps failed: {failed}.", remedy="see above; the same command tries them again"
            )


def steps(
    data: Path,
    out: Path,
    model: str,
    training: Sequence[list[Any]],
    common: list[Any],
    photographs: Path | None,
    bsds: Path | None,
) -> Iterator[Step]:
    """What is run, in order. The most wanted result comes first, as time may end.

    Args:
        data: folder of the data set.
        out: folder for everything.
        model: name of the model.
        training: words of supervised.py for each part of the training, one or two.
        common: words of all programs that use the device.
        photographs: to choose the threshold on.
        bsds: to measure the levels on.
    """
    from cast_sdk.training.data.prepare.packing import test_splits
    from cast_sdk.training.engine.chain import Step

    plain, weights = out / "plain.safetensors", out / f"{model}.safetensors"
    run, last = out / "run", TRAIN
    words: list[Any]
    yield Step(TRAIN, "supervised", ["--data", data, "--out", run, *training[0]], gives=partial(trained, run))
    for options in training[1:]:
        start, run, last = run / "best_checkpoint.pth", out / "finish", FINISH
        words = ["--data", data, "--out", run, *options, "--set", f"model.init={json.dumps(str(start))}"]
        yield Step(FINISH, "supervised", words, [TRAIN], gives=partial(trained, run))
    files = {"--weights": plain, "--card": out / "README.md", "--curve": out / "curve.png"}
    words = ["--run", run, "--data", data, *(word for option in files.items() for word in option)]
    yield Step(PUBLISH, "publish", words, [last], list(files.values()))
    words = ["--model", plain, "--data", data, *(["--photographs", photographs] if photographs else [])]
    yield Step(CALIBRATE, "calibrate", [*words, "--out", weights], [PUBLISH], [weights], json.loads)
    for split in test_splits(data):
        words = ["--model", weights, "--data", data, "--split", split, "--fit", "stretch", "--json", *common]
        yield Step(split, "evaluate", words, [CALIBRATE], read=json.loads)
    if bsds:
        folder = out / "levels"
        words = ["--data", bsds, "--split", "val", "--method", weights, "--out", folder]
        yield Step(LEVELS, "hierarchy", words, [CALIBRATE], gives=lambda: measured(folder))


def trained(run: Path) -> dict[str, Any] | None:
    """What a run says of itself, over all its sessions; None where it has not finished."""
    from cast_sdk.training.engine.runlog import read_log

    ends, starts, validations = (read_log(run, kind) for kind in ("end", "start", "validation"))
    if not ends or not ends[-1]["finished"] or not starts or not validations:
        return None
    end = ends[-1]
    images = validations[-1]["step"] * starts[-1]["recipe"]["train"]["batch"]
    return {"images": images, "training_seconds": end["seconds"], "images_per_second": images / end["seconds"]}


def measured(folder: Path) -> dict[str, Any]:
    """The covering of each level that hierarchy.py has measured."""
    from cast_sdk.system.files import read_json
    from cast_sdk.training.metrics.hierarchy_results import RECORD

    record = read_json(folder / RECORD)
    (method,) = record["methods"].values()
    return {"images": record["images"], "covering": [level["covering"] for level in method["levels"]]}


def machine(gpu: bool, workers: int) -> str:
    """What the steps ran on. The name of a GPU opens it, so this is for after them."""
    import torch

    from cast_sdk.system.processor import available_cores, processor_name

    name = torch.cuda.get_device_name() if gpu else processor_name()
    return f"{name}, {available_cores()} cores, {workers} loader processes, torch {torch.__version__}"


def write(out: Path, report: Mapping[str, Any]) -> None:
    """results.json and results.md in place of those of before; the table is printed too."""
    from cast_sdk.system.files import atomic_write

    text = table(report)
    for name, content in (("results.json", json.dumps(report, indent=1)), ("results.md", text)):
        with atomic_write(out / name) as temporary:
            temporary.write_text(content)
    click.echo(text)


def table(report: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    rows = [("machine", report["machine"]), ("data", report["data"])]
    for name, result in report.items():
        if isinstance(result, Mapping) and "seconds" in result:
            # A training tells its own time, over all sessions; the seconds are those of its last process.
            took = "" if name in (TRAIN, FINISH) else f" ({result['seconds']:.0f} s)"
            rows += [(what, text + took) for what, text in said(name, result)]
    for title in ("left out", "failed"):
        rows += [(f"{title}: {name}", why) for name, why in report[title].items()]
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {text} |" for what, text in rows)]) + "\n"


def said(name: str, result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of one step's result."""
    if name in (TRAIN, FINISH):
        seen = f"{result['images']:,} images in {result['training_seconds'] / 60:.1f} minutes"
        yield name, f"{seen}, {result['images_per_second']:.0f} images/s"
    elif name == CALIBRATE:
        errors = f"calibration error {100 * result['ece_before']:.1f} % before, {100 * result['ece_after']:.1f} % after"
        yield name, f"temperature {result['temperature']:.2f}, {errors}, {result['images']:,} held-out images"
        if "unsure_below" in result:
            right = result["precision"]
            named = f"{100 * result['named']:.0f} % named" + ("" if right is None else f", right {100 * right:.0f} %")
            yield (
                "photographs",
                (
                    f"top-1 {100 * result['top1_of_known']:.1f} % of {result['known_photographs']} of known classes; "
                    f"unsure below {result['unsure_below']:.2f}: {named} of {result['kept_apart']} kept apart"
                ),
            )
    elif name == LEVELS:
        covering = " ".join(f"{value:.3f}" for value in result["covering"])
        yield name, f"covering {covering} on {result['images']} images of BSDS500"
    elif "top1" in result:
        yield name, f"top-1 {result['top1']:.1f} %, top-5 {result['top5']:.1f} %, {result['images']:,} images"
    else:
        yield name, "written"


if __name__ == "__main__":
    main()
