"""Options that mean nothing in a request are refused: nobody shall believe that they did something."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cast_sdk.errors import ExportError

_ENGINE = ("flavor", "workspace_mb", "version_compatible", "hardware_compatible", "timing_cache")
_PAGE = ("runtime", "webgpu")
_BARS = ("min_top1", "min_cosine", "min_matched", "min_iou")
_INT8 = ("calibrate", "keep_float")
_OUTPUTS = ("soft_assignments", "tokens", "compact")
_MODEL = ("stage", "image_size", "superpixels")


def check_command(options: Mapping[str, Any], given: Collection[str]) -> None:
    """For `cast-export` without a subcommand.

    Args:
        options: all of its options, by the names of its parameters.
        given: names of those that were on the command line.

    Raises:
        ExportError: naming the first option that does not apply, why, and what to do.
    """
    page = bool(options["web"] or options["single_file"])
    made = bool(options["ckpt"] or options["name"])  # a graph is made here
    if not made and not page and not options["onnx"]:
        return  # there is nothing to export, which is said elsewhere
    reduced = options["precision"] in ("fp16", "int8")
    kept = f"{options['onnx']} is a finished graph" if options["onnx"] else "the bundled model's graph is taken"
    checks = (
        (_ENGINE, options["trt"], "it is of TensorRT engines", "add --trt"),
        (_PAGE, page, "it is of pages for the browser", "add --web DIR or --single-file FILE"),
        ((*_MODEL, *_OUTPUTS, *_INT8, *_BARS), made, kept, "start from --ckpt CHECKPOINT"),
        (("batch", "precision", "verify", "images"), made or not page, kept, "start from --ckpt CHECKPOINT"),
        (
            (*_OUTPUTS, *_INT8, *_BARS, "verify", "images"),
            not options["torch_trt"],
            "Torch-TensorRT compiles the model itself, without a graph and without verification",
            "leave out --torch-trt",
        ),
        (
            ("soft_assignments", "tokens", *_INT8),
            not options["aot"],
            "a package compiled ahead of time has the model's usual outputs, in fp32, bf16 or fp16",
            "leave out --aot",
        ),
        (("precision",), options["precision"] != "bf16" or options["aot"], "graphs have no bf16", "add --aot"),
        (("precision",), options["precision"] != "int8" or not options["aot"], "--aot has no int8", "leave out --aot"),
        (_INT8, options["precision"] == "int8", "it is of graphs in integers", "add --precision int8"),
        (_BARS, reduced, "fp32 must agree with the model exactly", "add --precision fp16 or int8"),
        ((*_BARS, "images"), options["verify"], "nothing is verified with --no-verify", "leave out --no-verify"),
    )
    for names, applies, found, remedy in checks:
        for name in names:
            if name in given and not applies:
                raise _refusal(_flag(name, options), found, remedy)


def check_arguments(
    precision: str, verify: bool, *, images: object, calibrate: object, keep_float: object, thresholds: object
) -> None:
    """For `export_onnx`: None stands for what was not given.

    Raises:
        ExportError: naming the first argument that does not apply.
    """
    checks = (
        ("calibrate", calibrate, precision == "int8", "it is of graphs in integers", 'give precision="int8"'),
        ("keep_float", keep_float, precision == "int8", "it is of graphs in integers", 'give precision="int8"'),
        ("thresholds", thresholds, precision != "fp32", "fp32 must agree exactly", 'give precision="fp16" or "int8"'),
        ("thresholds", thresholds, verify, "nothing is verified", "give verify=True"),
        ("images", images, verify, "nothing is verified", "give verify=True"),
    )
    for name, value, applies, found, remedy in checks:
        if value is not None and not applies:
            raise _refusal(f"{name}=", found, remedy)


def _refusal(what: str, found: str, remedy: str) -> ExportError:
    return ExportError(f"{what} does not apply here.", found=found, remedy=f"{remedy}, or leave out {what}")


def _flag(name: str, options: Mapping[str, Any]) -> str:
    if name == "verify":
        return "--verify" if options["verify"] else "--no-verify"
    return "--workspace" if name == "workspace_mb" else f"--{name.replace('_', '-')}"
