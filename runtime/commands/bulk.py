"""cast-bulk: a Parquet data set of the classes, embeddings and segments of many images."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from cast_sdk.runtime.bulk.groups import GROUPS
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
    from cast_sdk.runtime.bulk.job import Engine, Progress

LINE_SECONDS = 30.0  # between two lines of progress where there is no terminal


@click.command(cls=Command)
@click.argument("inputs", nargs=-1, required=True)
@click.option("--out", "-o", required=True, metavar="DATASET", help="Folder of the data set: new, or interrupted.")
@click.option(
    "--only",
    type=click.Choice(GROUPS),
    multiple=True,
    help="Write these columns alone (may be given again); embedding: for retrieval. Default: all.",
)
@click.option("--tokens", is_flag=True, help="Also write the token of each segment; the model must give them.")
@click.option("--column", metavar="NAME", help="Of Parquet inputs: the column of images, or of their paths.")
@click.option(
    "--part-rows",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    show_default=True,
    help="Images per Parquet file; about three files fit in memory.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or Ray.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes (default: one per core of the machine or cluster).")
@click.option(
    "--address", metavar="auto|HOST:PORT", help="Of a running Ray cluster (default: a new one on this machine)."
)
@model_options
@common_options
@clean_exit()
def main(
    inputs: tuple[str, ...],
    out: str,
    only: tuple[str, ...],
    tokens: bool,
    column: str | None,
    part_rows: int,
    engine: str,
    workers: int | None,
    address: str | None,
    **model: Any,
) -> None:
    """Write the results for INPUTS as a Parquet data set, one row per image.

    \b
      photos/ a.jpg 'more/*.png'    folders to any depth, files, quoted patterns
      list.txt                      one path or address a line, seen from the list's folder
      shard-00.tar                  the images in it
      table.parquet                 a column of encoded images, or of paths
      s3://bucket/photos            all that fsspec opens

    An image that cannot be used is a row with its error. Interrupted at any moment, by whatever means, the same command
    goes on: no row is lost or written twice. The list of images is made once, when the data set begins.
    """
    from pathlib import Path

    from cast_sdk.errors import InputError
    from cast_sdk.runtime.bulk import job
    from cast_sdk.runtime.bulk.dataset import Dataset
    from cast_sdk.runtime.bulk.inputs import Listing
    from cast_sdk.runtime.bulk.rows import Recipe
    from cast_sdk.runtime.bulk.schema import Layout
    from cast_sdk.system.files import sha256
    from cast_sdk.system.installing import require
    from cast_sdk.system.processor import available_cores

    if "://" in out:
        raise InputError(f"The data set is written to a folder, not to {out}.", remedy="copy it there once it is done")
    if address and engine != "ray":
        raise InputError("--address names a Ray cluster.", remedy="add --engine ray")
    if engine == "ray":
        require("ray", "--engine ray")
    model["threads"] = model["threads"] or 1
    with open_runtime(model) as runtime:
        layout = Layout.of(runtime, sha256(runtime.path), only or GROUPS, tokens=tokens)
        options = {**model, "model": runtime.path}
        settings = {
            "inputs": list(inputs),
            "column": column,
            "part_rows": part_rows,
            "backend": type(runtime.backend).__name__,
            "device": runtime.device,
            "precision": model["precision"] or runtime.info.precision,
            **grouping_setting(runtime),
        }
        workers = workers or (1 if runtime.device == "cuda" else None)
        description = repr(runtime)
    options = {name: value for name, value in options.items() if value not in (None, False)}
    recipe = Recipe(layout, options)
    with Dataset(Path(out), layout, settings) as dataset:
        if not dataset.listed:
            listing = Listing(inputs, column)
            dataset.list_inputs(listing, part_rows)
            for line in listing.left_out:
                click.echo(line, err=True)
        chosen: Engine = job.local_engine(workers or available_cores())
        if engine == "ray":
            from cast_sdk.runtime.bulk.on_ray import ray_engine

            chosen = ray_engine(workers, address)
        if not is_quiet():
            click.echo(description, err=True)
        hidden = is_quiet() or not sys.stderr.isatty()
        with click.progressbar(length=1, show_pos=True, label="images", file=sys.stderr, hidden=hidden) as bar:
            begun = said = time.monotonic()

            def report(progress: Progress) -> None:
                nonlocal said
                done, now = progress.before + progress.rows, time.monotonic()
                if progress.rows == 0:
                    bar.length = progress.total
                    if progress.before:
                        click.echo(f"{progress.before} of {progress.total} are finished already", err=True)
                elif not sys.stderr.isatty() and not is_quiet() and now - said >= LINE_SECONDS:
                    said = now
                    pace = f"{progress.rows / (now - begun):.1f} images/s, {progress.errors} errors"
                    click.echo(f"{done} of {progress.total} images, {pace}", err=True)
                bar.update(done - bar.pos)

            manifest = job.run(dataset, recipe, chosen, report)
    click.echo(f"{manifest['rows']} rows in {len(manifest['parts'])} parts in {out}/")
    if manifest["errors"]:
        count = "1 image has" if manifest["errors"] == 1 else f"{manifest['errors']} images have"
        click.echo(f"{count} an error, which the column error tells", err=True)
    if manifest["errors"] == manifest["rows"]:
        click.echo("error: not one image could be used", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
