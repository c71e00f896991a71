"""cast-export: a checkpoint to ONNX, TensorRT or a page; what an artifact is, and how good a reduced one is.

The options of engines and pages live beside them; everything heavy is imported when a command runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cast_sdk.export.engines.options import trt_options
from cast_sdk.export.web.options import web_options
from cast_sdk.runtime.commands.common import FiniteRange, clean_exit, common_options
from cast_sdk.runtime.commands.program import Group

if TYPE_CHECKING:
    from pathlib import Path

    from cast_sdk.export.verification.quality import Thresholds

_log = logging.getLogger("cast_sdk.export")
F = TypeVar("F", bound=Callable[..., Any])


def threshold_options(command: F) -> F:
    """Options --min-top1, --min-cosine, --min-matched, --min-iou."""
    for name, what in (
        ("top1", "share of images with the same class"),
        ("cosine", "cosine of the centred class scores"),
        ("matched", "share of pixels with the same segment after matching, at every level"),
        ("iou", "mean IoU of matched segments, at every level"),
    ):
        option = click.option(f"--min-{name}", type=FiniteRange(0, 1), help=f"fp16, int8: least {what}.")
        command = option(command)
    return command


@click.group(invoke_without_command=True, cls=Group)
@click.option(
    "--ckpt",
    metavar="FILE",
    help="Checkpoint: official (.pth, .pth.tar) or own (.safetensors, a folder); a published name or hf:// address.",
)
@click.option(
    "--model", "name", metavar="NAME", help="Instead: a registered model with random weights, to measure speed."
)
@click.option("--source", metavar="TEXT", hidden=True, help="Where the weights came from, unless they say so.")
@click.option("--onnx", metavar="FILE", help="Instead: an exported graph, for an engine (--trt) or a page (--web).")
@click.option("--out", "-o", metavar="FILE", help="The .onnx or .engine to write.  [default: named after the input]")
@click.option(
    "--stage", type=click.Choice(["pretrain", "segmentation"]), help="Of cast_seg checkpoints (keys cannot tell)."
)
@click.option("--batch", type=click.IntRange(0), help="Images per call; 0: any number.  [default: 1]")
@click.option("--image-size", type=click.IntRange(8), metavar="PIXELS", help="Side of the input (segmentation models).")
@click.option("--superpixels", type=click.IntRange(1), metavar="N", help="Superpixels to ask SEEDS for.")
@click.option("--soft-assignments", is_flag=True, help="Also give the soft assignment of every level.")
@click.option("--tokens", is_flag=True, help="Also give the tokens of every level.")
@click.option("--compact", is_flag=True, help="Store fp32 weights in half the space where that loses nothing.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8", "bf16"]),
    help="Of the graph; bf16 with --aot.  [default: fp32]",
)
@click.option("--verify/--no-verify", default=True, show_default=True, help="Compare with the model on real images.")
@click.option(
    "--images",
    multiple=True,
    metavar="PATH",
    help="Files or folders to verify on.  [default: photographs in the package]",
)
@click.option("--calibrate", multiple=True, metavar="PATH", help="int8: folders of 64 or more real images.")
@click.option(
    "--keep-float",
    multiple=True,
    metavar="PATTERN",
    help="int8: nodes to leave in float; 'none': quantise all.  [default: decided by measuring each layer]",
)
@threshold_options
@trt_options
@web_options
@common_options
@click.pass_context
@clean_exit()
def main(context: click.Context, **options: Any) -> None:
    """Export a CAST checkpoint to one self-contained ONNX file.

    The graph takes an image and its superpixels and gives class, embedding and the four levels of segments. It is
    compared with the model on real images before anything is written.

    \b
      cast-export --ckpt cast_s.pth --out cast_s.onnx
      cast-export --ckpt cast_s.pth --trt
      cast-export --ckpt segmenter.pth --target cpu
      cast-export --ckpt cast_s.pth --web site
      cast-export inspect cast_s.onnx
    """
    from click.core import ParameterSource

    given = [name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if context.invoked_subcommand is None:
        export(options, given)
    elif given:
        words = {parameter.name: parameter.opts[0] for parameter in context.command.params}
        raise click.UsageError(f"{words[given[0]]} is no option of {context.invoked_subcommand}; leave it out.")


def export(options: dict[str, Any], given: Collection[str]) -> None:
    """Run `cast-export` without a subcommand; `given`: names of the options that were on the command line."""
    from pathlib import Path

    from cast_sdk.export.applicable import check_command
    from cast_sdk.export.engines import options as trt_cli
    from cast_sdk.export.web import options as web_cli
    from cast_sdk.system.installing import require

    _check_target(options)
    check_command(options, given)
    if options["onnx"] is None:  # a graph has its precision and its batch already
        options["precision"] = options["precision"] or "fp32"
        options["batch"] = 1 if options["batch"] is None else options["batch"]
    if web_cli.asked(options):
        say = Steps()
        web_cli.write_pages(options, say, lambda graph: _export_graph(options, graph, say))
        return
    source = _one_source(options)
    out = Path(options["out"] or f"{_stem(source)}{'.engine' if options['trt'] else '.onnx'}")
    graph = Path(options["onnx"] or (out.with_suffix(".onnx") if options["trt"] else out))
    say = Steps()
    if options["onnx"] is None:
        require("export", "Exporting")
    opening = options["ckpt"], options["name"], options["stage"], options["source"]
    if options["torch_trt"]:
        trt_cli.compile_torch_trt(options, _stem(source), say, lambda: _open(*opening))
        return
    if options["aot"]:
        trt_cli.compile_ahead_of_time(options, _stem(source), say, lambda: _open(*opening), _thresholds)
        return
    request = None
    if options["trt"]:
        engine = out if out.suffix != ".onnx" else out.with_suffix(".engine")
        request = trt_cli.engine_request(graph, engine, options)
        trt_cli.check_before_export(request, say)
    if options["onnx"] is None:
        _export_graph(options, graph, say)
    if request is not None:
        trt_cli.build_and_say(request, say, verify=options["verify"], images=options["images"])


def _export_graph(options: dict[str, Any], target: Path, say: Steps) -> None:
    from cast_sdk.export.onnx_export import check_target, export_onnx

    check_target(target)
    checkpoint, name = options["ckpt"], options["name"]
    say(f"reading {checkpoint}" if checkpoint else f"creating {name} with random weights")
    model, digest = _open(checkpoint, name, options["stage"], options["source"])
    info = export_onnx(
        model,
        target,
        batch=options["batch"] or None,
        image_size=options["image_size"],
        superpixels=options["superpixels"],
        soft_assignments=options["soft_assignments"],
        tokens=options["tokens"],
        compact=options["compact"],
        precision=options["precision"],
        verify=options["verify"],
        images=list(options["images"]) or None,
        calibrate=list(options["calibrate"]) or None,
        target="tensorrt" if options["trt"] else "cpu" if options["targets"] == "cpu" else "any",
        keep_float=list(options["keep_float"]) or None,
        thresholds=_thresholds(options["precision"], options),
        checkpoint_sha256=digest,
        say=say,
    )
    if not info.verification:
        say("not verified, as asked")
    say(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")


def _check_target(options: dict[str, Any]) -> None:
    """Refuse what a graph for processors cannot be, and other targets without the engine that they are of."""
    from cast_sdk.errors import ExportError

    if options["targets"] not in ("cpu", "current") and not options["trt"]:
        raise ExportError(
            f"--target {options['targets']} was given without --trt.",
            found="compute capabilities such as sm86 are of TensorRT engines; a graph is for every target, or for cpu",
            remedy="add --trt, or leave --target out",
        )
    others = ("trt", "torch_trt", "web", "single_file", "onnx")
    given = [f"--{name.replace('_', '-')}" for name in others if options[name]]
    if options["targets"] == "cpu" and given:
        raise ExportError(
            f"--target cpu and {given[0]} were given together.",
            found="engines, pages and finished graphs are made from the graph for every target",
            remedy="leave one of them out: cast-export --ckpt CHECKPOINT --target cpu --out MODEL.onnx",
        )


def _thresholds(precision: str, options: dict[str, Any]) -> Thresholds | None:
    """The bars of a precision with those given on the command line in their place; None where nothing is verified."""
    import dataclasses

    from cast_sdk.export.verification.quality import THRESHOLDS

    if precision == "fp32" or not options.get("verify", True):
        return None
    given = {name: options[f"min_{name}"] for name in ("top1", "cosine", "matched", "iou")}
    return dataclasses.replace(THRESHOLDS[precision], **{k: v for k, v in given.items() if v is not None})


def _one_source(options: dict[str, Any]) -> str:
    """The checkpoint, model name or graph to start from."""
    from cast_sdk.errors import ExportError

    given = [f"--{key}" for key, value in (("ckpt", "ckpt"), ("model", "name"), ("onnx", "onnx")) if options[value]]
    if len(given) != 1:
        raise ExportError(
            f"{' and '.join(given)} were given together." if given else "There is nothing to export.",
            remedy="give one of --ckpt, --model and --onnx, as in: cast-export --ckpt CHECKPOINT --out MODEL.onnx",
        )
    if options["onnx"] and not options["trt"]:
        raise ExportError(
            "--onnx was given without --trt or --web: the graph is exported already.",
            remedy=f"cast-export --onnx {options['onnx']} --trt, or cast-export inspect {options['onnx']}",
        )
    return str(options["ckpt"] or options["name"] or options["onnx"])


@main.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@clean_exit()
def inspect(file: str, as_json: bool) -> None:
    """Say what FILE is: an .onnx, an .engine or a checkpoint."""
    import json

    from cast_sdk.export.inspection import describe, text

    found = describe(file)
    click.echo(json.dumps(found, indent=2, sort_keys=True) if as_json else text(found))


@main.command()
@click.argument("reference")
@click.argument("reduced")
@click.option(
    "--images", multiple=True, metavar="PATH", help="Files or folders.  [default: photographs in the package]"
)
@threshold_options
@clean_exit()
def compare(reference: str, reduced: str, images: tuple[str, ...], **options: Any) -> None:
    """Report how far REDUCED is from REFERENCE (.onnx, .engine or checkpoint) on real images.

    Class, class scores and segments are compared; segments are matched first, since numbers mean nothing. Ends with
    exit code 1 below the bars, which default to those of REDUCED's precision.
    """
    from cast_sdk.export.verification.comparison import compare_artifacts
    from cast_sdk.export.verification.report import refuse_shortfall

    def bars(precision: str) -> Thresholds:
        found = _thresholds(precision if precision in ("fp16", "int8") else "fp16", options)
        assert found is not None
        return found

    report = compare_artifacts(reference, reduced, list(images) or None, bars)
    click.echo(report.table())
    refuse_shortfall(
        report,
        f"{reduced} is too far from {reference}.",
        "export it in a higher precision, or set other bars (--min-...)",
    )


@main.command()
@click.argument("ckpt")
@click.option("--calibrate", multiple=True, required=True, metavar="PATH", help="Folders of 64 or more real images.")
@click.option("--target", type=click.Choice(["onnxruntime", "tensorrt"]), default="onnxruntime", show_default=True)
@click.option("--stage", type=click.Choice(["pretrain", "segmentation"]), help="Of a cast_seg checkpoint.")
@click.option("--image-size", type=click.IntRange(8), metavar="PIXELS", help="Side of the input (segmentation models).")
@clean_exit()
def sensitivity(ckpt: str, calibrate: tuple[str, ...], target: Any, stage: Any, image_size: int | None) -> None:
    """Quantise each layer of CKPT alone and list what that does, the most sensitive layer first."""
    from cast_sdk.export.precision.sensitivity import text
    from cast_sdk.export.verification.comparison import sensitivities

    say = Steps()
    say(f"reading {ckpt}")
    model, _ = _open(ckpt, None, stage)
    click.echo(text(sensitivities(model, list(calibrate), target, image_size, say)))


class Steps:
    """Progress on stderr: one line a step with the seconds since the start; several lines (a table) as they are."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def __call__(self, line: str) -> None:
        head = f"[{time.perf_counter() - self.start:5.1f} s] "
        _log.info("\n" + line + "\n" if "\n" in line else head + line)


def _stem(path: str) -> str:
    name = path.rstrip("/").rsplit("/", 1)[-1]
    for suffix in (".tar", ".pth", ".pt", ".safetensors", ".onnx"):
        name = name.removesuffix(suffix)
    return name


def _open(checkpoint: str | None, name: str | None, stage: Any, source: str | None = None) -> tuple[Any, str]:
    """The model in evaluation mode and the digest of its checkpoint; `source`: where that came from."""
    if checkpoint is None:
        import torch

        from cast_sdk.models import create_model

        torch.manual_seed(0)
        assert name is not None
        return create_model(name, **({"stage": stage} if stage else {})).eval(), ""
    from cast_sdk.hub import names
    from cast_sdk.models import load_model
    from cast_sdk.system.files import sha256

    file, found = names.resolve(checkpoint)
    model = load_model(file.absolute(), stage=stage)  # absolute: a path and no name, whatever the file is called
    model.spec = names.credited(model.spec, names.Source(source, "") if source else found)
    return model, sha256(file)


if __name__ == "__main__":
    main()
