"""cast-serve: classes, embeddings and segments of photographs over HTTP, as JSON."""

from __future__ import annotations

import logging
from typing import Any

import click

from cast_sdk.runtime.commands.common import (
    FiniteRange,
    clean_exit,
    common_options,
    is_quiet,
    model_options,
    open_runtime,
)
from cast_sdk.runtime.commands.program import Command


@click.command(cls=Command)
@click.option(
    "--serve",
    default="127.0.0.1:8000",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen. Other addresses than 127.0.0.1 need a token.",
)
@click.option("--token", envvar="CAST_SERVE_TOKEN", metavar="TOKEN", help="Default: a new random one, where needed.")
@click.option("--workers", type=click.IntRange(1, 64), help="Threads that work on photographs (default: cores).")
@click.option(
    "--queue",
    "places",
    type=click.IntRange(1, 10_000),
    help="Photographs that wait or are worked on, at most (default: 8 per worker, at least 16); more get a 429.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 16),
    help="Photographs in one pass of the network, at most (default: 8 on a GPU, 1 on a CPU).",
)
@click.option(
    "--linger",
    type=FiniteRange(0, 60),
    default=1.0,
    show_default=True,
    metavar="S",
    help="After SIGTERM: seconds for which new requests are still refused with 503, before the port closes.",
)
@model_options
@common_options
@clean_exit()
def main(
    serve: str,
    token: str | None,
    workers: int | None,
    places: int | None,
    batch: int | None,
    linger: float,
    **model: Any,
) -> None:
    """Answer photographs with JSON: POST /v1/segment, /v1/segment-batch, /v1/embedding; the rest is at /docs.

    \b
    cast-serve                                             this machine alone
    cast-serve --model cast_s.onnx --serve 0.0.0.0:8000    the network, with a token
    curl --data-binary @photo.jpg localhost:8000/v1/segment
    """
    from cast_sdk.runtime.service.server import Service, default_places
    from cast_sdk.runtime.service.web import parse_address
    from cast_sdk.system.processor import available_cores

    host, port = parse_address(serve)
    workers = workers or available_cores()
    model["threads"] = model["threads"] or 1
    runtime = open_runtime(model)
    fixed = runtime.info.batch
    service = None
    try:
        service = Service(
            runtime,
            host=host,
            port=port,
            token=token,
            threads=workers,
            places=places or default_places(workers),
            batch=min(batch or (8 if runtime.device == "cuda" else 1), fixed or 16),
            linger=linger,
        )
        from cast_sdk.runtime.service import logs

        logs.start(logging.WARNING if is_quiet() else logging.INFO)
        click.echo(f"{runtime!r}\n{service.url}docs" if not service.token else f"{runtime!r}\n{service.url}", err=True)
        service.run()
    finally:
        if service is not None:
            service.close()
        else:
            runtime.close()


if __name__ == "__main__":
    main()
