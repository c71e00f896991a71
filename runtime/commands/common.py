"""What the commands share: clear ends for errors and interruptions, and the options that open a model."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from cast_sdk.errors import CastError, MissingDependencyError
from cast_sdk.system.files import kind_at
from cast_sdk.system.secrets import mask
from cast_sdk.system.signals import Interruption, interruptible

F = TypeVar("F", bound=Callable[..., Any])


class OrdinaryPath(click.Path):
    """click.Path for files and folders: refuses an empty name, and pipes, sockets and devices, which may never end."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("The name is empty.", param, ctx)
        if kind_at(value) == "other":
            self.fail(f"{os.fspath(value)!r} is a pipe, socket or device.", param, ctx)
        return super().convert(value, param, ctx)


class FiniteRange(click.FloatRange):
    """click.FloatRange without "nan", which compares as neither below nor above any bound, and without infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


@contextmanager
def clean_exit() -> Iterator[None]:
    """End a program with the message of a CastError or of a missing package (1), or when interrupted (130, 143).

    For a `with` block, or as a decorator: `@clean_exit()`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    with interruptible(to_the_end=True) as interruption:
        try:
            yield
        except (CastError, ImportError) as error:
            # A signal during an import can come out of it as a package that cannot be imported.
            if interruption.number is not None and isinstance(error, (MissingDependencyError, ImportError)):
                _end_interrupted(interruption)
            if isinstance(error, ImportError):
                if not isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] == "cast_sdk":
                    raise
                from cast_sdk.system.installing import explain

                error = explain(error, "export", "serve", "bulk", "ray", "hub", "train")
            fail(error)
        except MemoryError as error:
            fail(
                CastError(
                    "There is not enough memory.",
                    found=str(error) or None,
                    remedy="smaller images, a smaller batch, or fewer --workers",
                )
            )
        except BrokenPipeError:
            raise  # nobody reads on; click ends in silence
        except OSError as error:
            if error.errno is None:
                raise
            fail_of_system(error)
        except KeyboardInterrupt:
            _end_interrupted(interruption)


def fail(error: CastError) -> NoReturn:
    """Say what is wrong and end with exit code 1."""
    with contextlib.suppress(OSError):  # nor can standard error be written to
        click.secho(f"error: {error}", err=True, fg="red" if sys.stderr is not None and sys.stderr.isatty() else None)
    raise SystemExit(1) from error


def fail_of_system(error: OSError) -> NoReturn:
    """Say what the operating system refused and end with exit code 1; in silence where nobody reads the output."""
    _discard_unwritable()
    if isinstance(error, BrokenPipeError):
        raise SystemExit(1) from None
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    fail(
        CastError(
            f"{name} cannot be used." if name else "The output cannot be written.",
            found=error.strerror or str(error),
            remedy="check the path, its permissions and the space on the disk",
        )
    )


def _discard_unwritable() -> None:
    """What the standard streams hold and cannot write goes nowhere: the interpreter tries again when it ends."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def _end_interrupted(interruption: Interruption) -> NoReturn:
    click.echo("interrupted", err=True)
    raise SystemExit(interruption.exit_code) from None


def common_options(command: F) -> F:
    """Options of every command: --version, --quiet and --verbose, which set the level of Python's logging."""

    def chosen(context: click.Context, option: click.Parameter, value: bool) -> None:
        if value:
            start_logging(logging.WARNING if option.name == "quiet" else logging.DEBUG)

    def start(context: click.Context, option: click.Parameter, value: bool) -> None:
        if value:
            from cast_sdk._version import __version__

            click.echo(f"{context.command_path} of cast-sdk {__version__}")
            context.exit()
        start_logging(logging.INFO)

    flag: dict[str, Any] = {"is_flag": True, "expose_value": False}
    command = click.option("--verbose", "-v", callback=chosen, help="Say more.", **flag)(command)
    command = click.option("--quiet", "-q", callback=chosen, help="Only results, warnings and errors.", **flag)(command)
    return click.option("--version", is_eager=True, callback=start, help="Show the version and exit.", **flag)(command)


class _Masked(logging.Formatter):
    """Without passwords: what a thread or a library reports may hold an address."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))


def start_logging(level: int) -> None:
    """Send the messages of this package, from `level` on, to the terminal."""
    log = logging.getLogger("cast_sdk")
    for handler in log.handlers[:]:
        log.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    text = "%(relativeCreated)8.0f ms %(name)s: %(message)s" if level == logging.DEBUG else "%(message)s"
    handler.setFormatter(_Masked(text))
    log.addHandler(handler)
    log.setLevel(level)


def is_quiet() -> bool:
    """Whether --quiet was given: no progress then."""
    return not logging.getLogger("cast_sdk").isEnabledFor(logging.INFO)


def model_options(command: F) -> F:
    """Options that open a model: --model, --backend, --device, --precision, --fit, --grouping, --threads, ..."""
    for option in reversed(
        (
            click.option(
                "--model",
                "-m",
                metavar="FILE",
                help=".onnx, .engine or checkpoint; or a published name (cast-doctor models) or hf:// address. "
                "Default: the bundled model.",
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
                "--precision",
                type=click.Choice(["fp32", "bf16", "fp16"]),
                help="OpenVINO (fp32, bf16) and checkpoints in torch: the precision they compute in.",
            ),
            click.option(
                "--fit",
                type=click.Choice(["stretch", "crop"]),
                default="stretch",
                show_default=True,
                help="Use the whole frame, or cut its centre as the reference's evaluation does.",
            ),
            click.option(
                "--grouping",
                type=click.Choice(["auto", "assigned", "merged"]),
                default="auto",
                show_default=True,
                help="How levels are made: as the network assigns superpixels, or by merging neighbours; auto: as the "
                "model says.",
            ),
            click.option(
                "--threads",
                type=click.IntRange(1),
                help="CPU threads of the network (default: cores, at most 8; one where several work side by side).",
            ),
            click.option(
                "--allow-code", is_flag=True, help="Open .ep and .pt2 programs, which can run code: trusted files only."
            ),
            click.option(
                "--spinning/--no-spinning",
                default=None,
                help="ONNX Runtime: let idle threads spin to the end of a run, or never (default: for a moment).",
            ),
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


def grouping_setting(runtime: Any) -> dict[str, str]:
    """`grouping` for the settings of a job, where it is not the model's own, which the model's file tells."""
    return {} if runtime.grouping == runtime.spec.grouping else {"grouping": runtime.grouping}
