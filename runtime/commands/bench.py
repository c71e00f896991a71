"""cast-bench: how fast a model runs here."""

from __future__ import annotations

import sys
from typing import Any

import click

from cast_sdk.runtime.commands.common import clean_exit, common_options
from cast_sdk.runtime.commands.program import Command


@click.command(cls=Command)
@click.argument("model", required=False)
@click.option("--compare", nargs=2, metavar="A B", help="Two models or backends in turn in one process, with ratios.")
@click.option("--frames", "count", type=click.IntRange(1, 10**6), default=100, show_default=True, help="Timed frames.")
@click.option("--warmup", type=click.IntRange(0, 10**6), default=5, show_default=True, help="Frames before them.")
@click.option("--streams", type=click.IntRange(0, 1000), default=3, show_default=True, help="Passes in streaming use.")
@click.option(
    "--images", metavar="PATH", help="An image, or a folder of them, decoded beforehand (default: a built-in scene)."
)
@click.option(
    "--size", default="640x480", show_default=True, metavar="WxH", help="Size of the built-in scene's frames."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--fit", type=click.Choice(["stretch", "crop"]), default="stretch", show_default=True)
@click.option("--grouping", type=click.Choice(["auto", "assigned", "merged"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads of the network (default: cores, at most 8).")
@click.option(
    "--spinning/--no-spinning",
    default=None,
    help="ONNX Runtime: let idle threads spin to the end of a run, or never (default: for a moment).",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@common_options
@clean_exit()
def main(
    model: str | None,
    compare: tuple[str, str] | None,
    count: int,
    warmup: int,
    streams: int,
    images: str | None,
    size: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Time MODEL, or two of them: load, first frame, every stage, frames per second and peak memory.

    MODEL, A and B are FILE[@BACKEND[:PRECISION]], for example:

    \b
      cast-bench cast_s.onnx
      cast-bench --compare cast_s.onnx cast_s.onnx@openvino
      cast-bench --compare cast_s.onnx@openvino cast_s.onnx@openvino:bf16
      cast-bench --compare cast_s.pth cast_s.onnx
    """
    import json

    from cast_sdk.runtime.commands import benchmark

    if model and compare:
        raise click.UsageError("give MODEL or --compare A B, not both")
    names = list(compare) if compare else [model]
    candidates = [benchmark.Candidate.parse(name) for name in names]
    frames = _frames(images, size)
    steps = len(candidates) * (count + warmup + streams)
    with click.progressbar(length=steps, label="timing", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        reports = benchmark.measure(
            candidates,
            frames,
            count=count,
            warmup=warmup,
            streams=streams,
            progress=lambda: bar.update(1),
            **options,
        )
    ratios = benchmark.ratios(*reports) if compare else None
    peak = benchmark.peak_memory_mb()
    if as_json:
        data = {
            "environment": benchmark.environment(),
            "frames": {"count": count, "size": [int(n) for n in frames[0].shape[:2]], "source": images or "scene"},
            "options": options,
            "results": [report.to_dict() for report in reports],
            "ratios": ratios,
            "peak_memory_mb": round(peak, 1) if peak else None,
        }
        click.echo(json.dumps(data, indent=2))
        return
    for report in reports:
        _print(report.to_dict())
    if ratios:
        click.echo(f"{reports[1].label} is times as fast as {reports[0].label}")
        click.echo(f"  {'':<12}{'median':>9}{'min':>9}{'pairs':>9}")
        for stage, row in ratios.items():
            click.echo(f"  {stage:<12}{row['median']:>9.2f}{row['min']:>9.2f}{row['pairs']:>9.2f}")
    if peak:
        click.echo(f"peak memory of the process: {peak:.0f} MB")


def _print(result: dict[str, Any]) -> None:
    click.echo(f"{result['label']}: {result['runtime']}")
    click.echo(f"  load {result['load_ms']:.0f} ms, first frame {result['first_frame_ms']:.1f} ms")
    click.echo(f"  {'ms':<12}{'median':>9}{'p90':>9}{'min':>9}")
    for stage, row in result["stages_ms"].items():
        click.echo(f"  {stage:<12}{row['median']:>9.2f}{row['p90']:>9.2f}{row['min']:>9.2f}")
    streaming = f", streaming {result['stream_fps']:.1f}" if result["stream_fps"] else ""
    click.echo(f"  frames per second: single {result['single_fps']:.1f}{streaming}\n")


def _frames(images: str | None, size: str) -> list[Any]:
    import re
    from pathlib import Path

    from cast_sdk.decoding.reader import read_image
    from cast_sdk.errors import InputError
    from cast_sdk.images import IMAGE_SUFFIXES, images_in
    from cast_sdk.runtime.commands import benchmark

    if images is None:
        sides = re.fullmatch(r"(?a:([1-9]\d{0,4})x([1-9]\d{0,4}))", size.lower())
        if not sides:
            raise InputError(f"--size {size} is not WIDTHxHEIGHT.", remedy="for example 1280x720")
        return benchmark.scene_frames(int(sides[1]), int(sides[2]))
    path = Path(images)
    files = [path]
    if path.is_dir():
        files = images_in(path)[:64]
        if not files:
            raise InputError(
                f"The folder {images} holds no images.", remedy=f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
    return [read_image(file) for file in files]


if __name__ == "__main__":
    main()
