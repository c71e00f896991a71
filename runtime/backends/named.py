"""From a name or hf:// address to a file that a backend opens: exported once, then without torch.

The export runs in a process of its own, so that torch never comes into this one, and its memory goes with it. Exported
graphs lie in `models/` of the cache folder, by the digest of the weights, the options of the export and the version of
this package.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from cast_sdk import bundled
from cast_sdk._version import __version__
from cast_sdk.arguments import one_of, shown, whole
from cast_sdk.errors import CastError, ExportError, InputError, MissingDependencyError
from cast_sdk.hub import names
from cast_sdk.hub.names import Source
from cast_sdk.spec import Stage
from cast_sdk.system.caches import cache_room
from cast_sdk.system.installing import require

_log = logging.getLogger("cast_sdk.export")
# Options of an export, and how cast-export takes them.
OPTIONS = {
    "batch": "--batch",
    "image_size": "--image-size",
    "precision": "--precision",
    "soft_assignments": "--soft-assignments",
    "stage": "--stage",
    "superpixels": "--superpixels",
    "tokens": "--tokens",
}
FLAGS = ("soft_assignments", "tokens")
_DEFAULTS = {"batch": 1, "precision": "fp32"}
PRECISIONS = ("fp32", "fp16")  # int8 needs images to calibrate with


def named_file(
    reference: str | os.PathLike[str], backend: str = "auto", export: Mapping[str, Any] | None = None
) -> Path | None:
    """The file to open for a published name or an hf:// address; None for the path of a file.

    Args:
        reference: as `Runtime` takes it.
        backend: "torch" runs the weights themselves; every other one an exported graph.
        export: options of the export (`OPTIONS`), as `export_onnx` has them; batch 0 or None: any number.

    Raises:
        InputError: for an unknown name or option.
        MissingDependencyError: without torch, or without huggingface_hub, when they are needed for the first time.
        CheckpointError: when the weights cannot be had, see `cast_sdk.hub.names.get`.
        ExportError: when the export fails.
    """
    source = names.find(reference)
    if source is None:
        if export:
            raise InputError(
                "export= was given for a file.", remedy="it is for published names and hf:// addresses; leave it out"
            )
        return None
    arguments = export_arguments(export or {})
    if source.is_graph:
        if export:
            raise InputError(
                f"{source.name} is exported already, so export= means nothing for it.",
                remedy="leave export= out, or name the weights it was exported from",
            )
        return names.get(source)
    if backend == "torch":
        return names.get(source)
    if not source.uri and not arguments:
        return bundled.path(bundled.MODEL)
    return exported(source, arguments)


def export_arguments(options: Mapping[str, Any]) -> list[str]:
    """Arguments of cast-export for options of an export, in a fixed order; none for what is so anyway.

    Raises:
        InputError: for an option that is unknown or has an impossible value.
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise InputError(
            f"The export of a name has no option {', '.join(unknown)}.",
            remedy=f"choose from {', '.join(OPTIONS)}; for others use cast-export and give its file",
        )
    if options.get("precision", "fp32") not in PRECISIONS:
        raise InputError(
            f"A name is not exported in the precision {options['precision']!r}.",
            remedy=f"choose {' or '.join(PRECISIONS)}; for int8: cast-export --precision int8 --calibrate IMAGES",
        )
    arguments: list[str] = []
    for name, option in OPTIONS.items():
        value = _checked(name, options.get(name, _DEFAULTS.get(name)))
        if name in FLAGS:
            arguments += [option] if value else []
        elif value != _DEFAULTS.get(name):
            arguments += [option, str(value)]
    return arguments


def _checked(name: str, value: Any) -> Any:
    """The value of an option as cast-export takes it; None where it decides."""
    if name in FLAGS:
        if not isinstance(value, (bool, type(None))):
            raise InputError(
                f"The option {name} of the export is {shown(value)}, not True or False.",
                remedy=f"give {name}=True, or leave it out",
            )
        return value
    if name == "batch":
        return whole(0 if value is None else value, "batch", 0, 65536)
    if value is None:
        return None
    if name == "stage":
        return one_of(value, "stage", get_args(Stage))
    if name == "image_size" and isinstance(value, (tuple, list)):
        raise InputError(
            f"A name is exported for square images, and image_size is {shown(value)}.",
            remedy="give the side in pixels; for a rectangle use export_onnx(model, 'MODEL.onnx', image_size=(height, "
            "width)) of cast_sdk.export, and give its file",
        )
    ranges = {"image_size": (8, 16384), "superpixels": (1, 2**20)}
    return whole(value, name, *ranges[name]) if name in ranges else value


def exported(source: Source, arguments: list[str]) -> Path:
    """The graph of a source, from the cache or exported now. Two processes at once: one exports, the other waits."""
    if names.known_digest(source) is None and not any(cache_room("models").glob(f"{_stem(source.name)}-*.onnx")):
        _check_torch(source)  # before a large download that nothing could be made of
    weights, digest = names.get_newest(source)
    graph = cache_room("models") / graph_name(source.name, digest, arguments)
    if graph.is_file():
        return graph
    _check_torch(source)
    with _alone(graph):
        if not graph.is_file():
            weights = weights or names.get(source)
            _log.info("exporting %s once, to %s", source.name, graph)
            _export(weights, graph, [*arguments, "--source", source.name])
    return graph


def graph_name(name: str, digest: str, arguments: list[str]) -> str:
    """File name of an exported graph; everything that makes another graph is in it."""
    key = hashlib.sha256(json.dumps([digest, arguments, __version__]).encode()).hexdigest()[:16]
    return f"{_stem(name)}-{key}.onnx"


def _stem(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name.removeprefix("hf://")).strip("-.")[-80:]


def _check_torch(source: Source) -> None:
    try:
        require("export", f"Running {source.name} for the first time")
    except MissingDependencyError as error:
        raise MissingDependencyError(
            error.problem,
            found=error.found,
            remedy=f"{error.remedy}; or export it where torch is: cast-export --ckpt {source.name} --out MODEL.onnx, "
            "and give that file here",
        ) from error


def _export(weights: Path, graph: Path, arguments: list[str]) -> None:
    """Run cast-export in another process and hand on what it says."""
    command = [sys.executable, "-m", "cast_sdk.export.cli", "--ckpt", str(weights.absolute()), "--out", str(graph)]
    with subprocess.Popen(
        [*command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said: list[str] = []
        try:
            for line in process.stdout:
                said.append(line.rstrip())
                level = logging.INFO if line.startswith("[") else logging.DEBUG  # a step; the table of the verification
                _log.log(level, "%s", line.rstrip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise _failure(said, process.returncode, " ".join(command[1:] + arguments))


def _failure(said: list[str], code: int, command: str) -> CastError:
    """The error that cast-export ended with, as it said it."""
    start = next((index for index, line in enumerate(said) if line.startswith("error: ")), None)
    if start is None:
        last = "; ".join(line for line in said[-3:] if line) or "nothing was said"
        return ExportError(f"The export ended with code {code}.", found=last, remedy=f"see all of it: python {command}")
    parts: dict[str, str] = {}
    for line in said[start + 1 :]:
        key, _, value = line.strip().partition(": ")
        if key in ("Found", "Remedy"):
            parts[key.lower()] = value
    return ExportError(said[start].removeprefix("error: "), found=parts.get("found"), remedy=parts.get("remedy"))


@contextlib.contextmanager
def _alone(graph: Path) -> Iterator[None]:
    """One process at a time; on file systems and systems without locks all of them, each writing the whole file."""
    path = graph.with_suffix(".lock")
    with path.open("a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield
