"""The part of `cast-export` that makes pages for the browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path

F = TypeVar("F", bound=Callable[..., Any])
Say = Callable[[str], None]


def web_options(command: F) -> F:
    """Options --web, --single-file, --runtime, --webgpu."""
    for option in (
        click.option("--webgpu", is_flag=True, help="Pages: with a switch for WebGPU (27 MB more, loaded when used)."),
        click.option(
            "--runtime",
            metavar="DIR",
            help="Pages: folder with onnxruntime-web's files.  [default: fetched by npm once, and cached]",
        ),
        click.option("--single-file", metavar="FILE", help="Write the page as one .html file, for use from disk."),
        click.option(
            "--web", metavar="DIR", help="Write a page that runs the model in the browser, for any static host."
        ),
    ):
        command = option(command)
    return command


def asked(options: dict[str, Any]) -> bool:
    """Whether a page is wanted."""
    return bool(options["web"] or options["single_file"])


def write_pages(options: dict[str, Any], say: Say, export_graph: Callable[[Path], None]) -> None:
    """Make the pages that the options ask for; `export_graph` writes the .onnx of --ckpt or --model to a path.

    Raises:
        ExportError: for options that do not go together, and as `assemble.write_folder`.
    """
    import tempfile
    from pathlib import Path

    from cast_sdk.bundled import path as bundled
    from cast_sdk.errors import ExportError
    from cast_sdk.export.web import assemble

    sources = [f"--{key}" for key, name in (("ckpt", "ckpt"), ("model", "name"), ("onnx", "onnx")) if options[name]]
    engines = [f"--{key}" for key, name in (("trt", "trt"), ("torch-trt", "torch_trt")) if options[name]]
    if len(sources) > 1 or engines:
        raise ExportError(
            f"{' and '.join(sources + engines)} do not go together with a page.",
            remedy="start from one of --ckpt, --model and --onnx, or leave them out for the bundled model",
        )
    if options["out"] and not (options["ckpt"] or options["name"]):
        raise ExportError("--out was given without --ckpt: no graph is exported.", remedy="leave --out out")
    for key, target in (("web", options["web"]), ("single-file", options["single_file"])):
        if target:
            assemble.check_new(Path(target), folder=key == "web")
    with tempfile.TemporaryDirectory() as temporary:
        graph = Path(options["onnx"]) if options["onnx"] else bundled("cast_tiny.onnx")
        if options["ckpt"] or options["name"]:
            graph = Path(options["out"]) if options["out"] else Path(temporary) / "model.onnx"
            export_graph(graph)
        more = {"runtime": options["runtime"], "webgpu": options["webgpu"], "say": say}
        if options["web"]:
            folder = assemble.write_folder(graph, options["web"], **more)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            say(f"wrote {folder} ({size / 1e6:.1f} MB); to look at it: python3 -m http.server -d {folder}")
        if options["single_file"]:
            file = assemble.write_single_file(graph, options["single_file"], **more)
            say(f"wrote {file} ({file.stat().st_size / 1e6:.1f} MB): open it in a browser")
