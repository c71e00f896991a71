"""The engine options of cast-export. Light: click only until something is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cast_sdk.runtime.engine.record import EngineInfo
    from cast_sdk.runtime.engine.request import BuildRequest

F = TypeVar("F", bound=Callable[..., Any])
Say = Callable[[str], None]


def trt_options(command: F) -> F:
    """Options --trt, --flavor, --target, --workspace, --version-compatible, --hardware-compatible, --timing-cache,
    --torch-trt, --aot."""
    for option in reversed(
        (
            click.option("--trt", is_flag=True, help="Build a TensorRT engine from the graph."),
            click.option(
                "--flavor",
                type=click.Choice(["auto", "tensorrt", "rtx"]),
                default="auto",
                show_default=True,
                help="tensorrt: Jetson and other GPUs, built on the GPU itself. rtx: RTX cards, built anywhere.",
            ),
            click.option(
                "--target",
                "targets",
                default="current",
                show_default=True,
                metavar="cpu|SM,...",
                help="cpu: a graph for processors, where segmentation models run faster by it. With --trt: compute "
                "capabilities such as sm86,sm89 (rtx); without a GPU, current means every RTX card from Ampere on.",
            ),
            click.option(
                "--workspace", "workspace_mb", type=click.IntRange(1), metavar="MB", help="Limit of scratch memory."
            ),
            click.option(
                "--version-compatible",
                is_flag=True,
                help="Let later TensorRT versions load it (tensorrt; may be slower).",
            ),
            click.option(
                "--hardware-compatible",
                is_flag=True,
                help="Let other GPUs from Ampere on load it (tensorrt, not on Jetson; slower).",
            ),
            click.option(
                "--timing-cache",
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="FILE",
                help="Keep measured kernel times there, so that the next build is faster (tensorrt).",
            ),
            click.option(
                "--torch-trt",
                is_flag=True,
                help="Compile with Torch-TensorRT to a .ep that runs in torch (needs a GPU).",
            ),
            click.option(
                "--aot",
                is_flag=True,
                help="Compile with AOTInductor to a .pt2 that runs in torch: for the GPU, or this processor "
                "where there is none or with --target cpu.",
            ),
        )
    ):
        command = option(command)
    return command


def engine_request(onnx: Path, engine: Path, options: Mapping[str, Any]) -> BuildRequest:
    """The build that the options of cast-export ask for."""
    from cast_sdk.runtime.engine.request import BuildRequest

    return BuildRequest(
        onnx=onnx,
        engine=engine,
        flavor=options["flavor"],
        precision=options["precision"],
        batch=options["batch"] if options["onnx"] else None,
        targets=tuple(name.strip() for name in options["targets"].split(",") if name.strip()),
        workspace_mb=options["workspace_mb"],
        version_compatible=options["version_compatible"],
        hardware_compatible=options["hardware_compatible"],
        timing_cache=options["timing_cache"],
    )


def check_before_export(request: BuildRequest, say: Say) -> None:
    """Find out before the graph is made what would stop the build.

    A missing GPU does not stop the export: the .onnx is what the target device needs. It is only announced.

    Raises:
        InputError, ExportError, MissingDependencyError: for options that do not fit, and when no TensorRT is installed.
    """
    from cast_sdk.errors import MissingDependencyError
    from cast_sdk.export.engines.tensorrt import check_build
    from cast_sdk.runtime.engine.api import load_tensorrt
    from cast_sdk.runtime.engine.build import check_environment, choose_flavor
    from cast_sdk.runtime.engine.cuda import find_gpu

    check_build(request)
    gpu = find_gpu()
    flavor = choose_flavor(request, gpu)
    try:
        trt = load_tensorrt(flavor)
        check_environment(request, trt, gpu)
    except MissingDependencyError:
        if flavor == "rtx" or gpu is not None:
            raise
        say(f"no engine will be built here; {request.onnx.name} is made for the target device")


def build_and_say(
    request: BuildRequest, say: Say, *, verify: bool = True, images: tuple[str, ...] | None = None
) -> EngineInfo:
    """Build, then say what was built and what was not measured.

    Raises:
        CastError: see `cast_sdk.export.build_engine`.
    """
    from cast_sdk.export.engines.tensorrt import build_verified

    record = build_verified(request, verify=verify, images=images or None)
    say("\n".join(describe(request.engine, record)))
    return record


def compile_torch_trt(
    options: Mapping[str, Any], stem: str, say: Say, open_model: Callable[[], tuple[Any, str]]
) -> None:
    """Compile with Torch-TensorRT and say what was written.

    Args:
        options: of cast-export.
        stem: of the input's name, for the default of --out.
        open_model: gives the model and its checkpoint's digest; called when everything else is there.

    Raises:
        CastError: see `cast_sdk.export.engines.torch_trt.export_torch_trt`.
    """
    from cast_sdk.errors import ExportError
    from cast_sdk.export.engines.torch_trt import SUFFIX, export_torch_trt, import_torch_tensorrt

    if options["trt"] or options["onnx"]:
        raise ExportError(
            f"--torch-trt and {'--trt' if options['trt'] else '--onnx'} were given together.",
            remedy="run cast-export twice: --torch-trt compiles a checkpoint, --trt builds an engine from a graph",
        )
    out = Path(options["out"] or f"{stem}{SUFFIX}")
    import_torch_tensorrt()
    model, digest = open_model()
    say("compiling with Torch-TensorRT")
    info = export_torch_trt(
        model,
        out,
        batch=options["batch"] or 1,
        image_size=options["image_size"],
        superpixels=options["superpixels"],
        precision=options["precision"],
        checkpoint_sha256=digest,
    )
    say(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB), {info.precision}, by {info.created_by}")


def compile_ahead_of_time(
    options: dict[str, Any],
    stem: str,
    say: Say,
    open_model: Callable[[], tuple[Any, str]],
    thresholds: Callable[[str, dict[str, Any]], Any],
) -> None:
    """Compile with AOTInductor and say what was written. Arguments as of `compile_torch_trt`.

    Args:
        thresholds: the bars of a precision, with those of the options in their place.

    Raises:
        CastError: see `cast_sdk.export.engines.ahead_of_time.export_ahead_of_time`.
    """
    from cast_sdk.errors import ExportError
    from cast_sdk.export.engines.ahead_of_time import SUFFIX, export_ahead_of_time

    others = [f"--{name.replace('_', '-')}" for name in ("trt", "torch_trt", "onnx", "compact") if options[name]]
    if others:
        raise ExportError(
            f"--aot and {others[0]} were given together.",
            remedy="run cast-export twice: --aot compiles a checkpoint to one .pt2 and nothing else",
        )
    out = Path(options["out"] or f"{stem}{SUFFIX}")
    model, digest = open_model()
    info = export_ahead_of_time(
        model,
        out,
        batch=options["batch"] or 1,
        image_size=options["image_size"],
        superpixels=options["superpixels"],
        precision=options["precision"],
        device="cpu" if options["targets"] == "cpu" else "auto",
        verify=options["verify"],
        images=list(options["images"]) or None,
        thresholds=thresholds(options["precision"], options),
        checkpoint_sha256=digest,
        say=say,
    )
    if not options["verify"]:
        say("not verified, as asked")
    say(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB), {info.precision}, by {info.created_by}")


def describe(engine: Path, record: EngineInfo) -> list[str]:
    """What a person wants to know about a new engine, line by line."""
    from cast_sdk.export.verification.report import Report

    counts = record.readback["weights"] or record.readback["products"]
    total = max(1, sum(counts.values()))
    kind = "weights" if record.readback["weights"] else "matrix products"
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in sorted(counts.items(), key=lambda x: -x[1]))
    targets = ", ".join(record.targets) + (f" ({record.gpu})" if record.gpu else "")
    lines = [
        f"{engine}  {record.plan_bytes / 1e6:.1f} MB, built by {record.package} in {record.build['seconds']:.1f} s",
        f"  precision   {record.precision}; {kind} read back from the engine's {record.readback['source']}: {shares}",
        f"  runs on     {targets}",
        f"  record      {engine.name}.json",
    ]
    parity = record.parity
    if not parity["ran"]:
        return [*lines, f"  NOT RUN     {parity['reason']}: nothing is known of its results and speed on a GPU"]
    clock = parity["median_ms"]
    return [
        *lines,
        f"  median      {clock['compute']:.2f} ms network, {clock['wall']:.2f} ms with copies",
        "",
        *(f"  {line}" for line in Report.from_dict(parity).table().splitlines()),
    ]
