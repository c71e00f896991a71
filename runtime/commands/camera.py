"""cast-camera: a camera, its hierarchy and its frame rate, in a window, a browser, a recording or the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import click

from cast_sdk.runtime.commands.common import FiniteRange, clean_exit, common_options, model_options, open_runtime
from cast_sdk.runtime.commands.program import Command

FLIPS = ["none", "horizontal", "vertical", "rotate-90", "rotate-180", "rotate-270"]


@click.command(cls=Command)
@click.argument("source", default="0")
@click.option("--show", is_flag=True, help="Open a window (default where there is a display).")
@click.option("--serve", metavar="HOST:PORT", help="Serve the live page. Other addresses than 127.0.0.1 need a token.")
@click.option("--record", metavar="FILE", help="Write an annotated video (.mp4, .avi, .mkv) and FILE's JSON lines.")
@click.option("--overwrite", is_flag=True, help="--record may replace a file that is there.")
@click.option("--headless", is_flag=True, help="No window.")
@click.option(
    "--level", "-l", type=click.IntRange(0), default=2, show_default=True, help="0: superpixels; 4: coarsest."
)
@click.option("--width", type=click.IntRange(1), help="Of the frames, in pixels (asked of a camera).")
@click.option("--height", type=click.IntRange(1), help="Of the frames, in pixels.")
@click.option("--rate", type=FiniteRange(0, min_open=True), help="Frames per second.")
@click.option("--flip", type=click.Choice(FLIPS), default="none", show_default=True, help="Mirror or turn the frames.")
@click.option("--loop", is_flag=True, help="Play files and folders again for ever.")
@click.option("--wait", is_flag=True, help="Keep trying when the camera is not there at the start.")
@click.option("--max-latency", type=FiniteRange(0, min_open=True), metavar="MS", help="Shed frames that are older.")
@click.option(
    "--track/--no-track",
    default=True,
    show_default=True,
    help="Ids and colours that stay with a segment, and segments that do not jump from frame to frame.",
)
@click.option("--workers", type=click.IntRange(1), help="Threads for superpixels (default: by device and cores).")
@click.option("--stall", type=FiniteRange(0), default=60.0, show_default=True, metavar="S", help="Watchdog; 0: off.")
@click.option("--frames", type=click.IntRange(1), help="Stop after so many frames.")
@click.option("--token", envvar="CAST_CAMERA_TOKEN", metavar="TOKEN", help="For --serve (default: a new random one).")
@model_options
@common_options
@clean_exit()
def main(
    source: str,
    show: bool,
    serve: str | None,
    record: str | None,
    overwrite: bool,
    headless: bool,
    level: int | None,
    max_latency: float | None,
    track: bool,
    stall: float,
    frames: int | None,
    token: str | None,
    **options: Any,
) -> None:
    """Segment what a camera sees, live. SOURCE is one URI:

    \b
      0, v4l2:///dev/video0      USB camera (?format=MJPG asks for a pixel format)
      csi://0                    camera of a Jetson
      rtsp://USER:PASS@HOST/...  network camera
      http://HOST/video.mjpg     MJPEG stream
      clip.mp4, shots/, '*.jpg'  files
      test://                    a moving scene, where there is no camera

    \b
    cast-camera                                 the first camera, in a window
    cast-camera csi://0 --serve 0.0.0.0:8000    in browsers of the network
    cast-camera test:// --serve 127.0.0.1:8000  try it without a camera
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
    from cast_sdk.errors import InputError
    from cast_sdk.runtime.camera import sinks as camera
    from cast_sdk.runtime.sources.base import Status
    from cast_sdk.runtime.sources.opening import open_source

    if record:
        check_record(record, source, overwrite=overwrite)
    wanted = {name: options.pop(name) for name in ("width", "height", "rate", "flip", "loop", "wait")}
    workers = options.pop("workers")
    if headless and show:
        raise InputError("--headless opens no window, --show does.", remedy="leave out one of them")
    if serve:
        from cast_sdk.runtime.camera.server import WebView
        from cast_sdk.runtime.service.web import parse_address

        host, port = parse_address(serve)  # before a model is loaded
    if not (show or serve or record or headless):
        show = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) or not sys.platform.startswith(
            "linux"
        )
        if not show:
            click.echo("no display: results go to the terminal; add --serve 127.0.0.1:8000 for a browser", err=True)
    opened = open_source(source, **wanted)
    runtime = open_runtime(options)
    sinks: list[camera.Sink] = []
    recorder = None
    with contextlib.ExitStack() as stack:
        stack.callback(runtime.close)

        def add(sink: camera.Sink) -> None:
            stack.callback(sink.close)
            sinks.append(sink)

        def on_status(status: Status) -> None:
            for sink in sinks:
                sink.status(status)

        levels = len(runtime.spec.clusters)
        if level is None:
            level = min(2, levels)
        elif level > levels:
            raise InputError(f"{runtime.spec.name} has no level {level}.", remedy=f"choose --level 0 to {levels}")
        click.echo(f"{runtime!r}\nsource {opened.uri}", err=True)
        add(camera.Terminal())
        add(camera.Watchdog())
        if record:
            from cast_sdk.runtime.output.recorder import Recorder

            rate = wanted["rate"] or getattr(opened, "rate", None) or 30.0
            recorder = Recorder(record, rate=rate, live=opened.live, level=level if levels else None, source=opened.uri)
            add(camera.Recording(recorder))
        if serve:
            view = WebView(runtime, host=host, port=port, token=token, title=opened.uri, level=level)
            add(view)
            click.echo(f"open {view.url}", err=True)
        if show:
            add(camera.Window(level=level, levels=levels))
        # The stream's threads run before it is here: an end that comes meanwhile is one like any other.
        with (
            contextlib.suppress(KeyboardInterrupt),
            runtime.stream(
                opened,
                workers=workers,
                max_latency=max_latency / 1e3 if max_latency else None,
                stall_timeout=stall or None,
                on_status=on_status,
                track=track,
            ) as stream,
        ):
            camera.run(stream, sinks, frames=frames or 0)
    if recorder is not None and not recorder.frames:
        click.echo(f"no frame came before the end, so {record} was not written", err=True)
        sys.exit(1)
    if recorder is not None:
        click.echo(f"wrote {record} and {recorder.records}", err=True)


def check_record(record: str, source: str, *, overwrite: bool) -> None:
    """Refuse a recording over its own source, or over a file that is there unless it may be replaced.

    Raises:
        InputError: naming the file.
    """
    import os
    from pathlib import Path

    from cast_sdk.errors import InputError

    for path in (Path(record), Path(record).with_suffix(".jsonl")):
        if Path(source).exists() and path.exists() and path.samefile(source):
            raise InputError(f"{path} is the source and cannot be recorded over.", remedy="give --record another name")
        if os.path.lexists(path) and not overwrite:
            raise InputError(f"{path} is there already.", remedy="give --record another name, or add --overwrite")


if __name__ == "__main__":
    main()
