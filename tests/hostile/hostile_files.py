"""Doors for files that describe or hold something: descriptions, checkpoints, records, recipes, exported graphs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostile_good import run_once
from hostile_harness import Case
from hostile_inputs import FILES, NAMES, VALUES, WORDS, spoiled, write_file

from cast_sdk.artifact import INFO_KEY, SPEC_KEY, ExportInfo
from cast_sdk.runtime.commands.results import Results
from cast_sdk.runtime.engine.record import read_sidecar, sidecar_path
from cast_sdk.runtime.output.recorder import Recorder, level_maps, read_records
from cast_sdk.spec import ModelSpec

if TYPE_CHECKING:
    from hostile_doors import Doors


def cases(doors: Doors) -> Iterator[Case]:
    """All of them."""
    for part in (descriptions, checkpoints, records, recipes, resumes, exports):
        yield from part(doors)


def descriptions(doors: Doors) -> Iterator[Case]:
    spec, info = doors.runtime.spec, doors.runtime.info
    for what, text in spoiled(spec.to_json()):
        yield Case("ModelSpec.from_json", what, lambda t=text: ModelSpec.from_json(t))
        yield Case("metadata of .onnx, model", what, lambda t=text: _with_metadata(doors, SPEC_KEY, t))
    for what, text in spoiled(info.to_json()):
        yield Case("ExportInfo.from_json", what, lambda t=text: ExportInfo.from_json(t))
        yield Case("metadata of .onnx, export", what, lambda t=text: _with_metadata(doors, INFO_KEY, t))
    record = {
        "schema_version": 1, "spec": spec.to_dict(), "info": json.loads(info.to_json()), "targets": ["current"],
        "plan_sha256": "0" * 64, "onnx_sha256": "0" * 64, "onnx_name": "m.onnx", "flavor": "rtx",
    }  # fmt: skip
    for what, text in spoiled(json.dumps(record)):
        yield Case("record of an engine", what, lambda t=text: _record(t), refused=True)
    for field in dataclasses.fields(ModelSpec):

        def act(value: Any, name: str = field.name) -> object:
            from cast_sdk.models import create_model

            return create_model("cast_tiny", **{name: value})

        if field.name in ("embed_dim", "depths", "num_heads", "clusters", "image_size", "drop_path", "std", "mean",
                          "num_classes", "superpixels", "taxonomy", "temperature", "palette"):  # fmt: skip
            for kind in (
                "minus one",
                "two to the 70",
                "nan",
                "text of a number",
                "list",
                "mapping",
                "object",
                "true",
            ):
                yield Case(f"create_model({field.name}=)", kind, lambda v=VALUES[kind], a=act: a(v))


def _with_metadata(doors: Doors, key: str, text: str) -> None:
    import onnx

    model = onnx.load(doors.good["model"])
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = text
    onnx.save(model, "bad.onnx")
    try:
        run_once(Path("bad.onnx"))
    finally:
        Path("bad.onnx").unlink()


def checkpoints(doors: Doors) -> Iterator[Case]:
    from cast_sdk.models import load_model

    for suffix, key in ((".safetensors", "checkpoint"), (".pth", "state"), (".pth.tar", "state")):
        yield from doors.files(f"load_model({suffix})", suffix, doors.good[key].read_bytes(), load_model)
    good = doors.good["state"]
    usual = {"num_classes": ("true",), "num_heads": (), "clusters": ()}
    for option in ("stage", "num_classes", "num_heads", "clusters"):
        act = lambda v, o=option: load_model(good, **{o: v})  # noqa: E731
        yield from doors.values(f"load_model({option}=)", act, usual.get(option, ()))
    for kind, state in _states().items():
        yield Case("load_model(state)", kind, lambda s=state: _load_saved(s), refused=True)


def records(doors: Doors) -> Iterator[Case]:
    with Recorder(doors.folder / "film.avi") as recorder:
        recorder.write(doors.result)
    lines = (doors.folder / "film.jsonl").read_text().splitlines()
    for index in (0, 1):
        for what, text in spoiled(lines[index]):
            kept = [text if index == i else line for i, line in enumerate(lines)]
            yield Case(f"line {index} of a recording", what, lambda t=kept: _read_recording(t))
    line = {
        "source": "/a.png", "stem": "a", "size": 1, "mtime_ns": 1, "inode": 1, "sha256": "0",
        "outputs": {"a.png": 3},
    }  # fmt: skip
    for what, text in spoiled(json.dumps(line)):
        yield Case("record of results", what, lambda t=text: _results(t))
    for kind in FILES:

        def spoil(kind: str = kind) -> None:
            Path("bad").mkdir()
            write_file(kind, Path("bad", "cast-segment.jsonl"), json.dumps(line).encode(), doors.seed)
            with Results(Path("bad"), {"a": 1}):
                pass

        yield Case("record of results", f"file, {kind}", spoil)
    for kind in ("NUL", "too long", "below a file", "device"):
        yield Case("record of results", kind, lambda n=NAMES[kind]: Results(Path(n), {"a": 1}), refused=True)


def recipes(doors: Doors) -> Iterator[Case]:
    from cast_sdk.training.engine.recipe.files import load_recipe
    from cast_sdk.training.engine.recipe.knobs import knobs
    from cast_sdk.training.engine.recipe.settings import Recipe

    for kind in FILES:

        def act(kind: str = kind) -> object:
            data = doors.good["recipe"].read_bytes()
            return load_recipe(str(write_file(kind, Path("bad.yaml"), data, doors.seed)))

        yield Case("recipe", f"file, {kind}", act)
    for kind, name in NAMES.items():
        yield Case("recipe", f"name, {kind}", lambda n=name: load_recipe(f"{n}.yaml"), refused=True)
    for knob in knobs(Recipe()):
        for kind in ("minus one", "nothing", "nan", "word", "quote", "pattern", "surrogate"):
            setting = f"{knob}={WORDS[kind]}"
            yield Case(f"--set {knob}", kind, lambda s=setting: load_recipe("tiny_supervised", [s]))


def resumes(doors: Doors) -> Iterator[Case]:
    from cast_sdk.training.engine.checkpointing import RESUME_KEY, load
    from cast_sdk.training.engine.recipe.files import load_recipe

    recipe = load_recipe(str(doors.good["recipe"])).to_dict()
    entry = {
        "recipe": {},
        "world_size": 1,
        "epoch": 1,
        "step": 2,
        "total": 3,
        "seconds": 1.0,
        "best": {"top1": 1.0},
    }

    def resume(stored: Any) -> None:
        import torch

        torch.save({"model": {}, RESUME_KEY: stored}, "checkpoint.pth")
        try:
            load(Path("checkpoint.pth"), recipe, 1)
        finally:
            Path("checkpoint.pth").unlink()

    for what, text in spoiled(json.dumps(entry)):
        with contextlib.suppress(ValueError, RecursionError):
            stored = json.loads(text)
            yield Case("entry resume", what, lambda s=stored: resume(s), refused=True)


def exports(doors: Doors) -> Iterator[Case]:
    from cast_sdk.export import export_onnx
    from cast_sdk.models import load_model

    model = load_model(doors.good["checkpoint"])
    for option in ("batch", "image_size", "superpixels", "precision", "images", "calibrate", "target"):

        def act(value: Any, option: str = option) -> object:
            more = {"precision": "int8"} if option in ("calibrate", "target") else {}
            return export_onnx(model, "new.onnx", **{"verify": option == "images", **more, option: value})

        for kind in ("minus one", "half", "nan", "empty text", "surrogate", "mapping", "object", "true", "complex"):
            yield Case(f"export_onnx({option}=)", kind, lambda v=VALUES[kind], a=act: a(v), refused=True)
    for kind, name in NAMES.items():
        yield Case("export_onnx(path)", kind, lambda n=name: export_onnx(model, n, verify=False))
    yield from doors.values("export_onnx(model)", lambda v: export_onnx(v, "new.onnx"))


def _record(text: str) -> None:
    path = sidecar_path("m.engine")
    path.write_text(text)
    try:
        read_sidecar("m.engine")
    finally:
        path.unlink()


def _read_recording(lines: list[str]) -> None:
    path = Path("film.jsonl")
    path.write_text("\n".join(lines))
    try:
        _, records = read_records(path)
        for record in records:
            level_maps(record)
    finally:
        path.unlink()


def _results(line: str) -> None:
    folder = Path("other")
    folder.mkdir()
    (folder / "cast-segment.jsonl").write_text(json.dumps({"settings": {"a": 1}}) + "\n" + line + "\n")
    try:
        with Results(folder, {"a": 1}, overwrite=True) as results:
            results.finished(Path("/a.png"), [folder / "a.png"])
            results.stem(Path("/a.png"), Path("a"), (".png",))
    finally:
        shutil.rmtree(folder)


def _states() -> dict[str, Any]:
    import torch

    return {
        "list": [1],
        "tensor": torch.ones(3),
        "empty": {},
        "nested": {"state_dict": {"model": {}}},
        "no tensors": {"state_dict": {"a": 1}},
        "number as key": {"state_dict": {1: torch.ones(1)}},
        "foreign": {"state_dict": {"conv1.weight": torch.ones(64, 3, 7, 7)}},
        "scalar": {"state_dict": {"cls_token": torch.tensor(1.0)}},
        "complex": {"state_dict": {"cls_token": torch.ones(1, 1, 32, dtype=torch.complex64)}},
        "huge": {"state_dict": {"cls_token": torch.ones(1).expand(1, 1, 10**9)}},
        "sparse": {"state_dict": {"cls_token": torch.eye(3).to_sparse()}},
        "meta": {"state_dict": {"cls_token": torch.ones(3, device="meta")}},
        "prefixes": {"state_dict": {"module.": torch.ones(1)}},
    }


def _load_saved(state: Any) -> None:
    import torch

    from cast_sdk.models import load_model

    torch.save(state, "bad.pth")
    try:
        load_model("bad.pth")
    finally:
        Path("bad.pth").unlink()
