"""Segment many image files: find them, deal names for their results, survive files that are broken."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cast_sdk.errors import CastError, ExportError, InputError
from cast_sdk.runtime.bulk.pool import Pool, Task, Work
from cast_sdk.runtime.commands.results import Identity, Results
from cast_sdk.runtime.preprocess import Prepared
from cast_sdk.runtime.result import Segmentation
from cast_sdk.runtime.runtime import Runtime
from cast_sdk.runtime.sources.base import VIDEO_SUFFIXES
from cast_sdk.runtime.sources.folders import search
from cast_sdk.runtime.sources.kinds import file_kind
from cast_sdk.system.files import writing

SUFFIXES = (".png", ".json", ".mp4", ".jsonl")  # of everything that may be made from one input
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")  # suffixes that make --out a picture


@dataclass
class Inputs:
    """What a command was given: files and the names their results would like to have, below the output folder.

    Attributes:
        images, videos: path and wanted name without suffix, in order, each file once.
        left_out: lines about files of folders that are not segmented.
    """

    images: list[tuple[Path, Path]] = field(default_factory=list)
    videos: list[tuple[Path, Path]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One image and the files that it becomes. `picture` or `data` is None where it is not asked for."""

    source: Path
    stem: Path
    picture: Path | None
    data: Path | None

    @property
    def outputs(self) -> list[Path]:
        return [path for path in (self.picture, self.data) if path]


def gather(paths: Iterable[str | os.PathLike[str]], own: set[Path]) -> Inputs:
    """The images and videos that were named, or that lie in the folders that were named.

    Folders are searched to any depth; their structure is kept. Videos in folders are left out.

    Args:
        paths: files and folders.
        own: resolved paths of earlier results, which are no inputs when they lie in a folder.

    Raises:
        InputError: for a path that does not exist, a folder without images, or nothing at all.
    """
    inputs = Inputs()
    for item in (found for path in paths for found in expand(path)):
        if "\0" in str(item) or not str(item):
            raise InputError(f"{str(item)!r} is no name of a file.", remedy="check the path")
        try:
            folder = item.is_dir()
        except OSError as error:
            raise InputError(f"{item} cannot be read.", found=error.strerror, remedy="check the path") from error
        if folder:
            found = search(item, own=own)
            if found.videos:
                found.left_out["videos inside a folder; name them to segment them"] = found.videos
            inputs.left_out += found.summary()
            if not found.images:
                raise InputError(
                    f"There are no images in {item}.",
                    found="; ".join(found.summary()) or "an empty folder",
                    remedy="name images, or a folder that holds some",
                )
            inputs.images += [(path, path.relative_to(item).with_suffix("")) for path in found.images]
        elif _is_video(item):
            inputs.videos.append((item, Path(item.stem)))
        else:
            inputs.images.append((item, Path(item.stem)))
    if not (inputs.images or inputs.videos):
        raise InputError("There is nothing to segment.", remedy="name images, videos or folders")
    inputs.images = list(dict.fromkeys(inputs.images))
    inputs.videos = list(dict.fromkeys(inputs.videos))
    return inputs


def expand(path: str | os.PathLike[str]) -> list[Path]:
    """One argument as paths: a quoted pattern such as 'shots/*.jpg' stands for the files it matches, sorted.

    Raises:
        InputError: for standard input, an address, or a pattern that matches nothing.
    """
    text = os.fspath(path)
    if not text:
        raise InputError("An empty name was given.", remedy="name files or folders")
    if text == "-":
        raise InputError("Images are not read from standard input.", remedy="name files or folders")
    if "://" in text:
        raise InputError(
            f"{text.partition('://')[0]}:// is an address, not a file.",
            remedy="download the picture first; for cameras and streams use cast-camera",
        )
    if glob.has_magic(text) and not os.path.lexists(text):
        found = sorted(map(Path, glob.glob(text, recursive=True)))  # noqa: PTH207
        if not found:
            raise InputError(f"Nothing matches {text}.", remedy="check the pattern")
        return found
    return [Path(text)]


def _is_video(path: Path) -> bool:
    """Kind of a file that was named: by its content, by its suffix where the content tells nothing.

    Raises:
        InputError: for a file that does not exist, cannot be read or is none.
    """
    if not path.exists():
        link = "a link that leads nowhere" if path.is_symlink() else "no file or folder"
        raise InputError(f"There is {link} {path}.", remedy="check the path; for a camera use cast-camera")
    if not path.is_file():
        raise InputError(f"{path} is a pipe, socket or device.", remedy="for cameras and streams use cast-camera")
    try:
        kind = file_kind(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read.", found=error.strerror, remedy="check its permissions") from error
    return kind == "video" or (kind is None and path.suffix.lower() in VIDEO_SUFFIXES)


def one_picture(inputs: Inputs, picture: Path, *, data: bool, overwrite: bool) -> Job:
    """The job of `--out picture.png`.

    Raises:
        InputError: unless there is exactly one image, or when a file is there and may not be replaced.
    """
    if inputs.videos or len(inputs.images) != 1:
        count = f"{len(inputs.images)} images and {len(inputs.videos)} videos"
        raise InputError(f"--out {picture} is one picture, for one image.", found=count, remedy="give --out a folder")
    source = inputs.images[0][0]
    job = Job(source, picture.with_suffix(""), picture, picture.with_suffix(".json") if data else None)
    for path in job.outputs:
        if path.exists() and (not overwrite or path.samefile(source)):
            remedy = "choose another --out" if path.samefile(source) else "choose another --out, or add --overwrite"
            raise InputError(f"{path} is there already.", remedy=remedy)
    return job


def plan(inputs: Inputs, results: Results, *, pictures: bool = True, data: bool = False) -> list[Job]:
    """One job per image, each with a name of its own.

    Raises:
        InputError: when a result would replace one of the inputs.
    """
    jobs = []
    for source, wanted in inputs.images:
        stem = results.stem(source, wanted, SUFFIXES)
        target = results.folder / stem
        picture, text = (target.with_name(target.name + suffix) for suffix in (".png", ".json"))
        jobs.append(Job(source, stem, picture if pictures else None, text if data else None))
    given = {path.resolve() for path, _ in (*inputs.images, *inputs.videos)}
    for job in jobs:
        for path in job.outputs:
            if path.resolve() in given:
                raise InputError(
                    f"{path} is an input of this command and would be replaced by a result.",
                    remedy="leave it out, or choose another --out",
                )
    return jobs


def run(
    runtime: Runtime,
    jobs: Sequence[Job],
    results: Results,
    *,
    level: int | Sequence[int] | None = None,
    step: Callable[[Job, Segmentation | None, CastError | None], None],
) -> None:
    """Segment and write every job in order; `step` is called for each, with its result or its error.

    Outputs appear whole or not at all. A file that cannot be read costs only itself. A result is released once `step`
    returns.

    Raises:
        ExportError: when a result cannot be written; what is finished is recorded.
    """
    batch = runtime.info.batch or 1
    waiting: list[tuple[Job, Identity, Prepared]] = []

    def flush() -> None:
        rows = runtime.infer([prepared for _, _, prepared in waiting])
        for (job, identity, prepared), row in zip(waiting, rows, strict=True):
            result = runtime.finish(prepared, row)
            try:
                results.begin(job.outputs)
                write(job, result, level)
                results.add(job.source, identity, job.stem, job.outputs)
            except ExportError:
                raise
            except CastError as error:
                step(job, None, error)
            else:
                step(job, result, None)
        waiting.clear()

    for job in jobs:
        try:
            identity = Identity.of(job.source)
            waiting.append((job, identity, runtime.add_superpixels(runtime.prepare(job.source))))
        except OSError as error:
            step(job, None, InputError(f"{job.source} cannot be read.", found=error.strerror))
        except CastError as error:
            step(job, None, error)
        if len(waiting) == batch:
            flush()
    if waiting:
        flush()


def write(job: Job, result: Segmentation, level: int | Sequence[int] | None) -> None:
    """The outputs of one job."""
    for path in job.outputs:
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        result.save(path, level)


def run_in_processes(
    options: dict[str, Any],
    workers: int,
    jobs: Sequence[Job],
    results: Results,
    *,
    level: int | Sequence[int] | None = None,
    step: Callable[[Job, Segmentation | None, CastError | None], None],
) -> None:
    """As `run`, in several processes that open a model each; `step` gets no results, for they stay there.

    An image that ends its process costs only itself.

    Args:
        options: of `Runtime`.
        workers: how many processes.
        jobs, results, level, step: see `run`.

    Raises:
        ExportError: when a result cannot be written; what is finished is recorded.
    """

    def tasks() -> Iterator[Task[Job]]:
        for number, job in enumerate(jobs):
            results.begin(job.outputs)
            yield Task(number, [job])

    with Pool(Writer(options, level), workers) as pool:
        for task, (identity, error) in pool.run(tasks()):
            job = task.items[0]
            if identity is not None:
                results.add(job.source, identity, job.stem, job.outputs)
            step(job, None, error)


@dataclass(frozen=True)
class Writer:
    """What a process of `run_in_processes` does, once it has opened the model."""

    options: dict[str, Any]
    level: int | Sequence[int] | None

    def __call__(self) -> Work:
        return partial(self._write, Runtime(**self.options))

    def _write(
        self, runtime: Runtime, task: Task[Job], started: Callable[[int], None]
    ) -> tuple[Identity | None, CastError | None]:
        job = task.items[0]
        if 0 in task.failed:
            return None, InputError(task.failed[0])
        started(0)
        try:
            identity = Identity.of(job.source)
            write(job, runtime.segment(job.source), self.level)
        except ExportError:
            raise
        except CastError as error:
            return None, error
        except OSError as error:
            return None, InputError(f"{job.source} cannot be read.", found=error.strerror)
        started(-1)
        return identity, None
