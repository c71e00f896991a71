"""Every option of every command by kinds of bad words and files, from the options that click knows of."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from hostile_harness import Case, Refused
from hostile_inputs import FILES, NAMES, WORDS, write_file

# Module, path of subcommands, and arguments that make a quick run or a quick refusal of what is not tried. {photo},
# {model}, {checkpoint}, {recipe} and {data} are good files in the folder of the case.
COMMANDS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "cast-segment": ("runtime.commands.segment", (), ("photo.png", "--out", "results", "--model", "{model}")),
    "cast-camera": (
        "runtime.commands.camera",
        (),
        ("test://?rate=0&count=1&width=64&height=64", "--headless", "--model", "{model}"),
    ),
    "cast-bench": (
        "runtime.commands.bench",
        (),
        ("{model}", "--frames", "1", "--warmup", "0", "--streams", "0", "--size", "64x48"),
    ),
    # Without a model these two end before they start processes and ports.
    "cast-bulk": ("runtime.commands.bulk", (), ("photo.png", "--out", "dataset", "--model", "nowhere.onnx")),
    "cast-serve": ("runtime.commands.serve", (), ("--model", "nowhere.onnx")),
    "cast-doctor models": ("runtime.commands.doctor", ("models",), ()),
    "cast-export": ("export.cli", (), ("--ckpt", "{checkpoint}", "--out", "out.onnx", "--no-verify")),
    "cast-export inspect": ("export.cli", ("inspect",), ("{model}",)),
    "cast-export compare": ("export.cli", ("compare",), ("{model}", "{model}", "--images", "photo.png")),
    "cast-export sensitivity": ("export.cli", ("sensitivity",), ("{checkpoint}", "--calibrate", "photo.png")),
    "supervised": ("training.supervised", (), ("--recipe", "{recipe}", "--data", "nowhere", "--out", "run")),
    "pretrain": ("training.pretrain", (), ("--recipe", "tiny_moco", "--data", "nowhere", "--out", "run")),
    "linear_probe": (
        "training.linear_probe",
        (),
        ("--recipe", "tiny_lincls", "--data", "nowhere", "--out", "run", "--checkpoint", "random"),
    ),
    "evaluate": ("training.evaluate", (), ("--model", "{checkpoint}", "--data", "nowhere")),
    "calibrate": ("training.calibrate", (), ("--model", "{checkpoint}", "--data", ".", "--out", "out.safetensors")),
    "publish": (
        "training.publish",
        (),
        ("--run", ".", "--data", ".", "--weights", "w.safetensors", "--card", "card.md", "--curve", "curve.png"),
    ),
    "hierarchy": ("training.hierarchy", (), ("--data", "nowhere", "--method", "seeds", "--out", "run")),
    "hierarchy, with images": (
        "training.hierarchy",
        (),
        (
            "--images",
            "{images}",
            "--labels",
            "{labels}",
            "--method",
            "superpixels",
            "--out",
            "run",
            "--size",
            "64",
            "--superpixels",
            "16",
            "--segments",
            "16,9",
            "--pictures",
            "0",
        ),
    ),
    "prepare_data imagenet": ("training.prepare_data", ("imagenet",), ("--data", "nowhere")),
    "prepare_data imagenet100": ("training.prepare_data", ("imagenet100",), ("--data", "nowhere", "--out", "o")),
    "prepare_data cub200": ("training.prepare_data", ("cub200",), ("--data", "nowhere", "--out", "o")),
    "prepare_data ade20k": ("training.prepare_data", ("ade20k",), ("--data", "nowhere")),
    "prepare_data camvid": ("training.prepare_data", ("camvid",), ("--data", "nowhere")),
    "prepare_data voc": ("training.prepare_data", ("voc",), ("--data", "nowhere")),
    "prepare_data coco": ("training.prepare_data", ("coco",), ("--data", "nowhere")),
    "prepare_data partimagenet": ("training.prepare_data", ("partimagenet",), ("--data", "nowhere")),
    "prepare_data pcontext": ("training.prepare_data", ("pcontext",), ("--data", "nowhere")),
    "prepare_data aircraft": ("training.prepare_data", ("aircraft",), ("--data", "nowhere", "--out", "o")),
    "prepare_data breeds": ("training.prepare_data", ("breeds",), ("--data", "nowhere", "--out", "o")),
    "prepare_data inat18": ("training.prepare_data", ("inat18",), ("--data", "nowhere", "--out", "o")),
    "prepare_data inat21-mini": ("training.prepare_data", ("inat21-mini",), ("--data", "nowhere", "--out", "o")),
    "prepare_data bundled": (
        "training.prepare_data",
        ("bundled",),
        ("--tiny", "nowhere", "--imagenette", "nowhere", "--out", "o"),
    ),
    "prepare_data soft-labels": ("training.prepare_data", ("soft-labels",), ("--data", ".", "--teacher", "{model}")),
    "prepare_data photographs": (
        "training.prepare_data",
        ("photographs",),
        ("--data", ".", "--teacher", "{model}", "--images", "nowhere"),
    ),
    "parts segments": (
        "training.parts",
        ("segments",),
        ("--model", "{checkpoint}", "--data", "nowhere", "--out", "o", "--device", "cpu"),
    ),
    "parts evaluate": (
        "training.parts",
        ("evaluate",),
        ("--segments", "nowhere", "--data", "nowhere", "--out", "o", "--device", "cpu"),
    ),
    "segment train": (
        "training.segment",
        ("train",),
        ("--recipe", "camvid_cast_tiny", "--data", "nowhere", "--out", "run", "--device", "cpu"),
    ),
    "segment evaluate": (
        "training.segment",
        ("evaluate",),
        ("--recipe", "camvid_cast_tiny", "--data", "nowhere", "--ckpt", "{checkpoint}", "--out", "o"),
    ),
    "segment baselines": (
        "training.segment",
        ("baselines",),
        ("--recipe", "camvid_cast_tiny", "--data", "nowhere", "--out", "o"),
    ),
    "segment pictures": (
        "training.segment",
        ("pictures",),
        ("--recipe", "camvid_cast_tiny", "--data", "nowhere", "--run", ".", "--out", "o"),
    ),
    "voc retrieve": ("training.voc", ("retrieve",), ("--ckpt", "{checkpoint}", "--data", "nowhere", "--out", "o")),
    "voc finetune": (
        "training.voc",
        ("finetune",),
        ("--recipe", "voc_finetune_cast_small", "--data", "nowhere", "--out", "run"),
    ),
    "voc evaluate": ("training.voc", ("evaluate",), ("--ckpt", "{checkpoint}", "--data", "nowhere", "--out", "o")),
    "cast-train classify": (
        "training.commands.main",
        ("classify",),
        ("nowhere", "--out", "run", "--device", "cpu", "--dry-run"),
    ),
    "cast-train segment": (
        "training.commands.main",
        ("segment",),
        ("nowhere", "--out", "run", "--device", "cpu", "--dry-run"),
    ),
    "cast-train pretrain": ("training.commands.main", ("pretrain",), ("nowhere", "--out", "run", "--device", "cpu")),
    "cast-train evaluate": ("training.commands.main", ("evaluate",), ("{model}", "nowhere")),
    "cast-train recipes": ("training.commands.main", ("recipes",), ("tiny_moco",)),
    "prepare_data regions": ("training.prepare_data", ("regions",), ("--images", ".", "--out", "o")),
}
# Options that begin something long, open a port or a window, or say what to do and not with what.
LEFT_OUT = {"show", "serve", "wait", "loop", "help", "version", "verbose", "quiet", "json", "web", "single_file"}
# What runs leave when they are refused: the record of results, the log of a run.
WRITES = {"results/cast-segment.jsonl", "run/log.jsonl"}
_PATHS = ("FILE", "DIR", "PATH", "RUN", "TREE")


def command_cases(good: dict[str, Path], seed: int) -> Iterator[Case]:
    """One case per option or argument and kind of word or file."""
    for title, (module, path, base) in COMMANDS.items():
        command: Any = importlib.import_module(f"cast_sdk.{module}").main
        for name in path:
            command = command.get_command(click.Context(command), name)
        arguments = [text.format(**good) for text in base]
        for parameter in command.params:
            if parameter.name in LEFT_OUT or getattr(parameter, "is_flag", False):
                continue
            for kind, words, made in _tries(parameter, good, seed):
                if kind == "word, dots" and title in ("cast-segment", "hierarchy, with images"):
                    continue  # folders like any other, to read and to write
                option = parameter.opts[0]
                # Programs of training share most of their options, so each of them is one door.
                door, kind = (title, f"{option}, {kind}") if "training" in module else (f"{title} {option}", kind)
                yield Case(
                    door,
                    kind,
                    _action(module, path, _with(arguments, parameter, words), made),
                    writes=tuple(WRITES),
                )


def _tries(parameter: Any, good: dict[str, Path], seed: int) -> Iterator[tuple[str, str, Any]]:
    for kind, word in WORDS.items():
        yield f"word, {kind}", word, None
    takes_path = isinstance(parameter.type, click.Path) or parameter.metavar in _PATHS
    if takes_path or isinstance(parameter, click.Argument) or parameter.name in ("recipe", "images", "path"):
        for kind, name in NAMES.items():
            if kind == "NUL":
                continue  # no command line can hold one
            yield f"name, {kind}", name, None
        suffix, data = _like(parameter, good)
        for kind in FILES:

            def make(kind: str = kind, suffix: str = suffix, data: bytes = data) -> None:
                write_file(kind, Path(f"bad{suffix}"), data, seed)

            yield f"file, {kind}", f"bad{suffix}", make


def _like(parameter: Any, good: dict[str, Path]) -> tuple[str, bytes]:
    """Suffix and bytes of a good file for an option."""
    for names, key in (
        (("model", "ckpt", "path", "checkpoint"), "checkpoint"),
        (("onnx", "reference", "reduced", "file"), "model"),
        (("recipe",), "recipe"),
    ):
        if parameter.name in names:
            return good[key].suffix, good[key].read_bytes()
    return ".png", good["photo"].read_bytes()


def _with(arguments: list[str], parameter: Any, word: str) -> list[str]:
    """The arguments with one value in the place of what they say."""
    if isinstance(parameter, click.Argument):
        return [word, *arguments[1:]]
    names = parameter.opts
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in names:
            skip = True
        else:
            kept.append(argument)
    return [*kept, *[f"{names[0]}={word}"] * max(1, parameter.nargs)] if names[0].startswith("--") else kept


def _action(module: str, path: tuple[str, ...], arguments: list[str], make: Any) -> Any:
    def act() -> None:
        if make is not None:
            make()
        invoke(module, [*path, *arguments])

    return act


def invoke(module: str, arguments: list[str]) -> str:
    """Run a command in this process; its output.

    Raises:
        Refused: it ended with a message and the exit code 1 or 2.
        BaseException: what came out of it.
    """
    main = importlib.import_module(f"cast_sdk.{module}").main
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 0:
        return result.output
    if result.exit_code not in (1, 2) or "Traceback" in result.output or not result.output.strip():
        raise AssertionError(f"exit code {result.exit_code} with: {result.output[-2000:]}")
    raise Refused(result.output)
