"""cast-segment: pictures and JSON for images and folders, annotated videos for videos."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.runtime.commands.common import (
    clean_exit,
    common_options,
    grouping_setting,
    is_quiet,
    model_options,
    open_runtime,
)
from cast_sdk.runtime.commands.program import Command

if TYPE_CHECKING:
    from pathlib import Path

    from cast_sdk.errors import CastError
    from cast_sdk.runtime.commands.results import Results
    from cast_sdk.runtime.commands.segment_images import Job
    from cast_sdk.runtime.result import Segmentation

    Failures = list[tuple[Path, CastError]]


@click.command(cls=Command)
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--out",
    "-o",
    default="segments",
    show_default=True,
    metavar="DIR",
    help="Folder for the results; for a single image also a picture, such as levels.png.",
)
@click.option(
    "--level",
    "-l",
    "levels",
    type=click.IntRange(0),
    multiple=True,
    help="0: superpixels; 1, 2, ...: fine to coarse. One: an overlay of the image's size; several: side by side. "
    "Default: the image and all levels.",
)
@click.option("--json", "data", is_flag=True, help="Write the class, embedding, segments and run-length masks too.")
@click.option("--no-pictures", is_flag=True, help="Write the JSON alone; for images.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes, for images.")
@click.option(
    "--track/--no-track",
    default=True,
    show_default=True,
    help="Videos: ids and colours that stay with a segment, and segments that do not jump from frame to frame.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Make finished results again: replaces what earlier runs wrote in DIR, or the one picture that --out names.",
)
@model_options
@common_options
@clean_exit()
def main(
    images: tuple[str, ...],
    out: str,
    levels: tuple[int, ...],
    data: bool,
    no_pictures: bool,
    workers: int,
    track: bool,
    overwrite: bool,
    **model: Any,
) -> None:
    """Segment IMAGES (files, folders or videos) into nested segments.

    Each becomes DIR/NAME.png (and NAME.json), a video DIR/NAME.mp4 and NAME.jsonl, one line per frame. Interrupted
    work goes on where it stopped: DIR/cast-segment.jsonl records what was made from which file. Files of yours are
    never replaced: where one has the name of a result, the result gets another. Broken files are named at the end and
    make the exit code 1.
    """
    from pathlib import Path

    from cast_sdk.errors import InputError
    from cast_sdk.runtime.commands import segment_images
    from cast_sdk.runtime.commands.results import Results, recorded
    from cast_sdk.system.files import sha256

    target = Path(out)
    single = target.suffix.lower() in segment_images.PICTURES and not target.is_dir()
    if no_pictures and (single or levels):
        other = f"--out {out} is a picture" if single else "--level chooses what pictures show"
        raise InputError(f"--no-pictures writes none, and {other}.", remedy="leave out one of them")
    inputs = segment_images.gather(images, set() if single else recorded(target))
    if no_pictures and inputs.videos:
        video = inputs.videos[0][0]
        raise InputError(f"--no-pictures is for images, and {video} is a video.", remedy="segment videos without it")
    if single:
        job = segment_images.one_picture(inputs, target, data=data, overwrite=overwrite)
        with open_runtime(model) as runtime:
            for level in levels:
                _check_level(level, runtime)
            result = runtime.segment(job.source)
            layers = None if not levels else levels[0] if len(levels) == 1 else levels
            for path in job.outputs:
                result.save(path, layers)
        _describe(job, result)
        return
    for line in inputs.left_out:
        click.echo(line, err=True)
    runtime = open_runtime(model)
    try:
        for level in levels:
            _check_level(level, runtime)
        settings = {
            "model": runtime.spec.name,
            "sha256": sha256(runtime.path)[:16],
            "backend": type(runtime.backend).__name__,
            "precision": model["precision"] or runtime.info.precision,
            "fit": runtime.fit,
            "levels": list(levels),
            "track": track,
            **grouping_setting(runtime),
        }
        with Results(target, settings, overwrite=overwrite) as results:
            jobs = segment_images.plan(inputs, results, pictures=not no_pictures, data=data or no_pictures)
            options = {**model, "model": runtime.path, "threads": model["threads"] or 1} if workers > 1 else None
            failures = _segment_images(runtime, jobs, results, levels, overwrite, options=options, workers=workers)
            for video, wanted in inputs.videos:
                level = levels[0] if levels else 2
                failures += _segment_video(runtime, video, wanted, results, level, overwrite, track=track)
    finally:
        runtime.close()
    for source, failure in failures:
        click.echo(f"error: {source}: {failure}", err=True)
    if failures:
        sys.exit(1)


def _segment_images(
    runtime: Any,
    jobs: list[Job],
    results: Results,
    levels: tuple[int, ...],
    overwrite: bool,
    *,
    options: dict[str, Any] | None = None,
    workers: int = 1,
) -> Failures:
    """Segment what is not finished, in processes that open the model with `options`; returns what failed."""
    from cast_sdk.runtime.commands import segment_images

    todo = jobs if overwrite else [job for job in jobs if not results.finished(job.source, job.outputs)]
    if len(todo) < len(jobs):
        click.echo(f"{len(jobs) - len(todo)} of {len(jobs)} are finished already")
        if not todo:
            _show_again(jobs)
    failures: Failures = []
    finished = 0
    last: list[tuple[Job, Segmentation]] = []
    layers = None if not levels else levels[0] if len(levels) == 1 else levels
    try:
        with click.progressbar(
            length=len(todo), label="segmenting", show_pos=True, file=sys.stderr, hidden=len(todo) < 2 or is_quiet()
        ) as bar:

            def step(job: Job, result: Segmentation | None, error: CastError | None) -> None:
                nonlocal finished
                if error is not None:
                    failures.append((job.source, error))
                else:
                    finished += 1
                if result is not None:
                    last[:] = [(job, result)]
                bar.update(1)

            if options and len(todo) > 1:
                chosen = {name: value for name, value in options.items() if value not in (None, False)}
                segment_images.run_in_processes(chosen, workers, todo, results, level=layers, step=step)
            else:
                segment_images.run(runtime, todo, results, level=layers, step=step)
    finally:
        if len(jobs) == 1 and last:
            _describe(*last[0])
        elif todo:
            click.echo(f"{finished} of {len(todo)} segmented into {results.folder}/")
    return failures


def _segment_video(
    runtime: Any, path: Path, wanted: Path, results: Results, level: int, overwrite: bool, *, track: bool
) -> Failures:
    """Segment one video unless it is finished; returns what failed."""
    from cast_sdk.errors import CastError, ExportError
    from cast_sdk.runtime.commands.results import Identity
    from cast_sdk.runtime.commands.segment_images import SUFFIXES
    from cast_sdk.runtime.commands.segment_video import segment_video

    stem = results.stem(path, wanted, SUFFIXES)
    film, lines = (results.folder / stem.with_name(stem.name + suffix) for suffix in (".mp4", ".jsonl"))
    if not overwrite and results.finished(path, [film, lines]):
        click.echo(f"{film} is finished already")
        return []
    try:
        identity = Identity.of(path)
        results.begin([film, lines])
        with click.progressbar(length=1, label=path.name, show_pos=True, file=sys.stderr, hidden=is_quiet()) as bar:

            def progress(result: Segmentation, frames: int) -> None:
                bar.length = max(frames, result.index + 1)
                bar.update(1)

            segment_video(runtime, path, film, level=level, track=track, progress=progress)
    except ExportError:
        raise
    except CastError as error:
        return [(path, error)]
    results.add(path, identity, stem, [film, lines])
    click.echo(f"wrote {film} and {lines}")
    return []


def _show_again(jobs: list[Job]) -> None:
    """Where the results of a finished run lie, and what the JSON of a single image says."""
    from cast_sdk.system.files import read_json

    for job in jobs[:5]:
        if len(jobs) == 1 and job.data:
            for best in read_json(job.data)["top"]:
                click.echo(f"{best['probability']:6.1%}  {best['name']}")
        for path in job.outputs:
            click.echo(f"  {path}")
    if len(jobs) > 5:
        click.echo(f"  ... {len(jobs) - 5} more in {jobs[0].outputs[0].parent}/")


def _check_level(level: int, runtime: Any) -> None:
    from cast_sdk.errors import InputError

    highest = len(runtime.spec.clusters)
    if level > highest:
        raise InputError(f"{runtime.spec.name} has no level {level}.", remedy=f"choose --level 0 to {highest}")


def _describe(job: Job, result: Segmentation) -> None:
    names = [f"{probability:6.1%}  {name}" for _, name, probability in result.top(5)]
    if result.unsure:
        names = ["no name it is sure of; the nearest:", *names[:3]]
    if result.spec.taxonomy:
        from cast_sdk.runtime.taxonomy import path_text

        names.append(f"path, coarse to fine: {path_text(result)}")
    segments = []
    if result.hierarchy:
        counts = ", ".join(str(result.num_segments(level)) for level in range(result.num_levels + 1))
        segments = [f"segments, fine to coarse: {counts}"]
    for line in segments + names if result.unsure else names + segments:
        click.echo(line)
    click.echo("milliseconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in result.timing.items()))
    for path in job.outputs:
        click.echo(f"wrote {path}")


if __name__ == "__main__":
    main()
