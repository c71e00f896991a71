"""Segment many image files: plan the outputs, skip what is finished, survive files that are broken."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cast_sdk.artifact import atomic_write
from cast_sdk.errors import CastError, InputError
from cast_sdk.runtime.preprocess import Prepared
from cast_sdk.runtime.result import Segmentation
from cast_sdk.runtime.runtime import Runtime
from cast_sdk.runtime.sources.base import IMAGE_SUFFIXES

RECORD = "cast-segment.json"  # in the output folder: the settings its files were made with


@dataclass(frozen=True)
class Job:
    """One image and the files that it becomes. `data` is None where no JSON is asked for."""

    source: Path
    picture: Path
    data: Path | None

    @property
    def outputs(self) -> list[Path]:
        return [self.picture] + ([self.data] if self.data else [])

    @property
    def done(self) -> bool:
        """True when every output exists and is not older than the image."""
        try:
            changed = self.source.stat().st_mtime_ns
            return all(path.stat().st_mtime_ns >= changed for path in self.outputs)
        except FileNotFoundError:
            return False


def plan(images: Iterable[str | os.PathLike[str]], out: Path, *, data: bool = False) -> list[Job]:
    """One job per image. Folders are searched to any depth; their structure is kept below `out`.

    Raises:
        InputError: for a path that does not exist, a folder without images, or nothing at all.
    """
    found: list[tuple[Path, Path]] = []  # image, its path below `out`
    for item in map(Path, images):
        if item.is_dir():
            inside = sorted(p for p in item.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            inside = [p for p in inside if out.resolve() not in p.resolve().parents]
            if not inside:
                raise InputError(
                    f"The folder {item} holds no images.",
                    remedy=f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}",
                )
            found += [(p, p.relative_to(item)) for p in inside]
        elif item.exists():
            found.append((item, Path(item.name)))
        else:
            raise InputError(f"There is no file or folder {item}.", remedy="check the path")
    if not found:
        raise InputError("There is nothing to segment.", remedy="name images or folders")
    taken: set[Path] = set()
    jobs = []
    for source, below in dict.fromkeys(found):
        stem, number = below.with_suffix(""), 1
        if stem in taken:  # a.jpg and a.png, or two folders with the same names
            stem = below.with_name(f"{below.stem}_{below.suffix[1:].lower()}")
        while stem in taken:
            number += 1
            stem = below.with_name(f"{below.stem}_{number}")
        taken.add(stem)
        target = out / stem
        jobs.append(
            Job(
                source,
                target.with_name(target.name + ".png"),
                target.with_name(target.name + ".json") if data else None,
            )
        )
    return jobs


def claim(out: Path, settings: dict[str, Any], *, overwrite: bool = False) -> None:
    """Create the output folder and record the settings; refuse one that was filled with others.

    Raises:
        InputError: when the folder cannot be made, or holds results of another model or other settings.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The output folder {out} cannot be made.", found=error.strerror, remedy="choose another --out"
        ) from error
    record = out / RECORD
    if record.is_file() and not overwrite:
        try:
            before = json.loads(record.read_text())
        except ValueError:
            before = {}
        changed = [
            f"{key} {before.get(key)!r} before, {value!r} now"
            for key, value in settings.items()
            if before.get(key) != value
        ]
        if changed:
            raise InputError(
                f"{out} holds results of another model or of other options.",
                found="; ".join(changed),
                remedy="choose another --out, or add --overwrite to make all of them again",
            )
    with atomic_write(record) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n")


def run(
    runtime: Runtime,
    jobs: Sequence[Job],
    *,
    level: int | Sequence[int] | None = None,
    step: Callable[[Job, Segmentation | None, CastError | None], None],
) -> None:
    """Segment and write every job in order; `step` hears of each, with its result or its error.

    Outputs appear whole or not at all. A file that cannot be read costs only itself. A result is released once `step`
    returns.
    """
    batch = runtime.info.batch or 1
    waiting: list[tuple[Job, Prepared]] = []

    def flush() -> None:
        rows = runtime.infer([prepared for _, prepared in waiting])
        for (job, prepared), row in zip(waiting, rows, strict=True):
            result = runtime.finish(prepared, row)
            try:
                write(job, result, level)
            except CastError as error:
                step(job, None, error)
            else:
                step(job, result, None)
        waiting.clear()

    for job in jobs:
        try:
            waiting.append((job, runtime.add_superpixels(runtime.prepare(job.source))))
        except CastError as error:
            step(job, None, error)
        if len(waiting) == batch:
            flush()
    if waiting:
        flush()


def write(job: Job, result: Segmentation, level: int | Sequence[int] | None) -> None:
    """The outputs of one job; the JSON last, so that its presence means that both are there."""
    job.picture.parent.mkdir(parents=True, exist_ok=True)
    result.save(job.picture, level)
    if job.data:
        result.save(job.data)
