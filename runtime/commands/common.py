"""What the commands share: clear ends for errors and interruptions, and the options that open a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from cast_sdk.errors import CastError

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def clean_exit() -> Iterator[None]:
    """End a program with exit code 1 and the message of a CastError; 130 when interrupted.

    For a `with` block, or as a decorator: `@clean_exit()`.
    """
    try:
        yield
    except CastError as error:
        click.secho(f"error: {error}", err=True, fg="red" if sys.stderr.isatty() else None)
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        raise SystemExit(130) from None


def model_options(command: F) -> F:
    """Options that open a model: --model, --backend, --device, --precision, --fit, --threads, ..."""
    for option in reversed(
        (
            click.option(
                "--model", "-m", metavar="FILE", help=".onnx, .engine or checkpoint (default: the bundled model)."
            ),
            click.option(
                "--backend",
                type=click.Choice(["auto", "onnxruntime", "openvino", "tensorrt", "torch"]),
                default="auto",
                show_default=True,
                help="What runs the network; auto: by the file's suffix.",
            ),
            click.option(
                "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where."
            ),
            click.option(
                "--precision", type=click.Choice(["f32", "bf16"]), help="OpenVINO only: the precision it computes in."
            ),
            click.option(
                "--fit",
                type=click.Choice(["stretch", "crop"]),
                default="stretch",
                show_default=True,
                help="Use the whole frame, or cut its centre as the reference's evaluation does.",
            ),
            click.option(
                "--threads", type=click.IntRange(1), help="CPU threads of the network (default: cores, at most 8)."
            ),
            click.option(
                "--allow-code", is_flag=True, help="Open .ep programs, which can run code: trusted files only."
            ),
            click.option("--spinning", is_flag=True, help="ONNX Runtime: let idle threads spin (for an idle machine)."),
        )
    ):
        command = option(command)
    return command


def open_runtime(options: dict[str, Any], **changes: Any) -> Any:
    """The Runtime that the values of `model_options` ask for."""
    from cast_sdk.runtime.runtime import Runtime

    chosen = {**options, **changes}
    if chosen.get("precision") is None:
        chosen.pop("precision", None)
    if not chosen.get("allow_code"):
        chosen.pop("allow_code", None)
    return Runtime(chosen.pop("model"), **chosen)
