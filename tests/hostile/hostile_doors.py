"""The doors of the package, each with the kinds of bad input that it is tried with."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hostile_commands import command_cases, invoke
from hostile_harness import Case, Refused
from hostile_inputs import FILES, NAMES, VALUES, WORDS, frames, spoiled, write_file

import cast_sdk
from cast_sdk import bundled
from cast_sdk.artifact import INFO_KEY, SPEC_KEY, ExportInfo
from cast_sdk.runtime import Runtime
from cast_sdk.runtime.commands.results import Results
from cast_sdk.runtime.engine.record import read_sidecar, sidecar_path
from cast_sdk.runtime.output.recorder import Recorder, level_maps, read_records
from cast_sdk.spec import ModelSpec

sys.path.append(str(Path(__file__).parent.parent / "support"))
from standin import StandIn

_RECIPE = """
program: supervised
model: {name: cast_tiny, options: {embed_dim: 32, depths: [1, 1, 1, 1], num_heads: 2, clusters: [8, 4, 3, 2]}}
superpixels: {count: 16, bins: 5, iterations: 4}
augment: {image_size: 32, eval_resize: 0}
schedule: {epochs: 1}
train: {batch: 8}
"""


class Doors:
    """The cases, and the good files that they spoil.

    Args:
        folder: where the good files are made.
        seed: of the mutations.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        import torch

        from cast_sdk.models import create_model, save_native

        self.folder, self.seed = folder, seed
        photo = folder / "photo.png"
        image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        photo.write_bytes(_encoded(".png", image))
        torch.manual_seed(0)
        tiny = create_model(
            "cast_tiny", embed_dim=32, depths=(1, 1, 1, 1), num_heads=2, clusters=(8, 4, 3, 2), num_classes=3
        )
        save_native(tiny.eval(), folder / "tiny.safetensors")
        torch.save({"state_dict": tiny.state_dict()}, folder / "tiny.pth")
        (folder / "micro.yaml").write_text(_RECIPE)
        self.good = {
            "photo": photo,
            "model": Path(bundled.path(bundled.MODEL)),
            "checkpoint": folder / "tiny.safetensors",
            "state": folder / "tiny.pth",
            "recipe": folder / "micro.yaml",
            "data": folder,
        }
        self.runtime = Runtime()
        self.result = self.runtime.segment(str(photo))
        self.right = [self.result.labels(level).copy() for level in range(5)]

    def prepare(self, folder: Path) -> None:
        """Files of the user in the folder of a case."""
        shutil.copy(self.good["photo"], folder / "photo.png")
        (folder / "notes.txt").write_text("mine")
        (folder / "results").mkdir()
        (folder / "results" / "photo.png").write_text("mine too")
        for name in ("out.onnx", "out.safetensors", "w.safetensors", "card.md", "curve.png"):
            (folder / name).write_text("mine as well")

    def still_right(self) -> bool:
        """Whether a good image still gives what it gave before."""
        again = self.runtime.segment(str(self.good["photo"]))
        return all(np.array_equal(again.labels(level), labels) for level, labels in enumerate(self.right))

    def cases(self) -> list[Case]:
        """All of them, always in the same order."""
        parts = (
            self._models,
            self._frames,
            self._sources,
            self._results,
            self._superpixels,
            self._descriptions,
            self._checkpoints,
            self._records,
            self._recipes,
            self._resumes,
            self._exports,
            self._web,
        )
        found = [case for part in parts for case in part()]
        return [*found, *command_cases(self.good, self.seed)]

    # ---------------------------------------------------------------- helpers

    def _files(self, door: str, suffix: str, data: bytes, act: Callable[[Path], object]) -> Iterator[Case]:
        """A door that takes a file, by every kind of file and name."""
        for kind in FILES:

            def spoil(kind: str = kind) -> object:
                return act(write_file(kind, Path(f"bad{suffix}"), data, self.seed))

            yield Case(door, f"file, {kind}", spoil, refused="changed" not in kind)
        for kind, name in NAMES.items():
            yield Case(door, f"name, {kind}", lambda name=name: act(Path(name) if name else name), refused=True)

    @staticmethod
    def _values(door: str, act: Callable[[Any], object], known: tuple[str, ...] = ()) -> Iterator[Case]:
        """A door that takes a value, by every kind; `known` are kinds that it may take."""
        for kind, value in VALUES.items():
            yield Case(door, f"value, {kind}", lambda value=value: act(value), refused=kind not in known)

    # ---------------------------------------------------------------- running

    def _models(self) -> Iterator[Case]:
        model, checkpoint = self.good["model"].read_bytes(), self.good["checkpoint"].read_bytes()
        yield from self._files("Runtime(.onnx)", ".onnx", model, _run_once)
        yield from self._files("Runtime(.safetensors)", ".safetensors", checkpoint, _run_once)
        yield from self._files("Runtime(.pth)", ".pth", self.good["state"].read_bytes(), _run_once)
        for suffix in (".engine", ".ep", ".pt", ".xyz", ""):
            yield from self._files(f"Runtime({suffix})", suffix, model, _run_once)
        yield from self._files("Runtime(.onnx), OpenVINO", ".onnx", model, lambda p: _run_once(p, backend="openvino"))
        yield from self._values("Runtime(model)", lambda value: Runtime(value).close())
        for option, known in (
            ("backend", ()),
            ("device", ()),
            ("fit", ()),
            ("threads", ()),
            ("spinning", ("true",)),
            ("nothing", ()),
        ):
            act = _option(option)
            yield from self._values(f"Runtime({option}=)", act, known)

    def _frames(self) -> Iterator[Case]:
        rt = self.runtime
        usual = ("one pixel", "one row", "grey", "backwards", "masked", "matrix", "read only")
        for kind, frame in frames().items():
            refused = kind not in usual
            yield Case("segment(array)", kind, lambda f=frame: _sound(rt.segment(f)), refused)
            yield Case("stream([array])", kind, lambda f=frame: [_sound(r) for r in rt.stream([f])], refused)
            yield Case("segment_batch([array])", kind, lambda f=frame: rt.segment_batch([f]), refused)
            yield Case("segment_batch(array)", kind, lambda f=frame: rt.segment_batch(f), kind != "batch")
        for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
            data = _encoded(suffix, np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8))
            for kind in FILES:

                def act(kind: str = kind, suffix: str = suffix, data: bytes = data) -> object:
                    return _sound(rt.segment(str(write_file(kind, Path(f"bad{suffix}"), data, self.seed))))

                # A decoder may know what a file lacks at its end, or read a picture without its first bytes.
                sure = not any(word in kind for word in ("changed", "nearly", "head"))
                yield Case(f"segment({suffix})", f"file, {kind}", act, refused=sure)
        for kind, name in NAMES.items():
            yield Case("segment(name)", kind, lambda name=name: rt.segment(name), refused=True)

    def _sources(self) -> Iterator[Case]:
        rt = self.runtime

        def look(source: Any, **options: Any) -> None:
            with rt.stream(source, **options) as results:
                for index, result in enumerate(results):
                    _sound(result)
                    if index == 2:
                        break

        clip = _film(self.folder / "clip.avi")
        for suffix in (".avi", ".png"):
            data = clip if suffix == ".avi" else self.good["photo"].read_bytes()
            for kind in FILES:

                def act(kind: str = kind, suffix: str = suffix, data: bytes = data) -> object:
                    return look(write_file(kind, Path(f"bad{suffix}"), data, self.seed))

                sure = not any(word in kind for word in ("changed", "nearly", "head"))
                yield Case(f"stream({suffix})", f"file, {kind}", act, refused=sure)
        yield from self._values("stream(source)", look, ("list",))
        for kind, address in {
            **NAMES,
            "camera": "97",
            "no camera": "v4l2:///dev/null",
            "format": "v4l2:///dev/video97?format=\udcff",
            "unknown parameter": "test://?colour=red",
            "no number": "test://?width=x",
            "negative": "test://?width=-5",
            "huge": "test://?width=1000000000",
            "nan": "test://?rate=nan",
            "negative seed": "test://?seed=-1",
            "long number": "test://?count=" + "9" * 5000,
            "no host": "rtsp://",
            "no port": "http://127.0.0.1:x/",
            "bracket": "http://[::1",
            "port too large": "http://127.0.0.1:99999/a",
            "file address": "file://%00",
            "pipeline": "gst://nothing ! nowhere",
            "sensor": "csi://x",
            "lines": "rtsp://a\nb",
        }.items():
            yield Case("stream(address)", kind, lambda a=address: look(a), refused=True)
        usual = {"max_latency": ("half",), "stall_timeout": ("two to the 32", "two to the 70", "half")}
        usual |= {"memory": ("half",), "rate": ("half",), "track": ("true",), "loop": ("true",), "wait": ("true",)}
        usual["max_latency"] += ("two to the 32", "two to the 70")
        for option in ("width", "height", "rate", "workers", "network_workers", "in_flight", "max_latency",
                       "stall_timeout", "memory", "flip"):  # fmt: skip
            more = {"track": True} if option == "memory" else {}

            def options(value: Any, option: str = option, more: dict[str, Any] = more) -> None:
                look("test://?width=64&height=48&rate=0&count=1", **{option: value}, **more)

            yield from self._values(f"stream({option}=)", options, usual.get(option, ()))

    def _results(self) -> Iterator[Case]:
        result = self.result
        yield from self._values("labels", result.labels)
        yield from self._values("num_segments", result.num_segments)
        yield from self._values("mask(level)", lambda v: result.mask(v, 0))
        yield from self._values("mask(segment)", lambda v: result.mask(1, v))
        yield from self._values("parents", result.parents)
        yield from self._values("tracks", result.tracks)
        yield from self._values("top(count)", result.top, ("two to the 32", "two to the 70"))
        yield from self._values("top(level)", lambda v: result.top(level=v))
        yield from self._values("class_name", result.class_name)
        yield from self._values("plot(level)", result.plot, ("list",))
        yield from self._values("plot(alpha)", lambda v: result.plot(1, alpha=v))
        assert result.hierarchy is not None
        yield from self._values("children(level)", lambda v: result.hierarchy.children(v, 0))
        yield from self._values("children(segment)", lambda v: result.hierarchy.children(1, v))
        yield from self._values("ancestors", lambda v: result.hierarchy.ancestors(0, v))
        for suffix in (".png", ".json", ".xyz", ""):
            for kind, name in NAMES.items():
                if kind not in ("dash", "pattern", "address", "kind of address", "empty"):
                    path = name if kind == "device" else f"{name}{suffix}"
                    refused = kind != "not UTF-8" or suffix not in (".png", ".json")
                    yield Case(f"save({suffix})", kind, lambda p=path: result.save(p), refused)
        yield from self._values("Recorder(rate)", lambda v: Recorder("film.avi", rate=v).close(), ("half",))
        for kind, name in NAMES.items():
            yield Case("Recorder(path)", kind, lambda p=name: Recorder(f"{p}.avi" if p else p).close())

    def _superpixels(self) -> Iterator[Case]:
        from cast_sdk import superpixels

        good = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
        before = superpixels.seeds(good, 16)
        usual = ("backwards", "masked", "read only")
        for kind, image in frames().items():
            small = kind in ("one pixel", "one row")
            yield Case("seeds(array)", kind, lambda i=image: superpixels.seeds(i, 16), kind not in usual or small)
            yield Case("seeds_batch(array)", kind, lambda i=image: superpixels.seeds_batch(i, 16), kind != "batch")
            yield Case("continue_seeds(labels)", kind, lambda i=image: superpixels.continue_seeds(good, i, 16), True)
        for option in ("num_superpixels", "bins", "iterations"):
            yield from self._values(f"seeds({option}=)", lambda v, o=option: superpixels.seeds(good, **{o: v}))
        yield from self._values("seeds_batch(threads)", lambda v: superpixels.seeds_batch([good], 16, threads=v),
                                ("two to the 32", "two to the 70"))  # fmt: skip
        yield from self._values("seeds_batch(out)", lambda v: superpixels.seeds_batch([good], 16, out=v))
        yield from self._values(
            "continue_seeds(passes)", lambda v: superpixels.continue_seeds(good, before, 16, passes=v)
        )
        yield from self._values("seeds_count(height)", lambda v: superpixels.seeds_count(v, 64, 16))
        yield from self._values("seeds_count(count)", lambda v: superpixels.seeds_count(48, 64, v))

    # ---------------------------------------------------------------- files that describe

    def _descriptions(self) -> Iterator[Case]:
        spec, info = self.runtime.spec, self.runtime.info
        for what, text in spoiled(spec.to_json()):
            yield Case("ModelSpec.from_json", what, lambda t=text: ModelSpec.from_json(t))
            yield Case("metadata of .onnx, model", what, lambda t=text: self._with_metadata(SPEC_KEY, t))
        for what, text in spoiled(info.to_json()):
            yield Case("ExportInfo.from_json", what, lambda t=text: ExportInfo.from_json(t))
            yield Case("metadata of .onnx, export", what, lambda t=text: self._with_metadata(INFO_KEY, t))
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

    def _with_metadata(self, key: str, text: str) -> None:
        import onnx

        model = onnx.load(self.good["model"])
        for entry in model.metadata_props:
            if entry.key == key:
                entry.value = text
        onnx.save(model, "bad.onnx")
        try:
            _run_once(Path("bad.onnx"))
        finally:
            Path("bad.onnx").unlink()

    def _checkpoints(self) -> Iterator[Case]:
        from cast_sdk.models import load_model

        for suffix, key in ((".safetensors", "checkpoint"), (".pth", "state"), (".pth.tar", "state")):
            yield from self._files(f"load_model({suffix})", suffix, self.good[key].read_bytes(), load_model)
        good = self.good["state"]
        usual = {"num_classes": ("true",), "num_heads": (), "clusters": ()}
        for option in ("stage", "num_classes", "num_heads", "clusters"):
            act = lambda v, o=option: load_model(good, **{o: v})  # noqa: E731
            yield from self._values(f"load_model({option}=)", act, usual.get(option, ()))
        for kind, state in _states().items():
            yield Case("load_model(state)", kind, lambda s=state: _load_saved(s), refused=True)

    def _records(self) -> Iterator[Case]:
        with Recorder(self.folder / "film.avi") as recorder:
            recorder.write(self.result)
        lines = (self.folder / "film.jsonl").read_text().splitlines()
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
                write_file(kind, Path("bad", "cast-segment.jsonl"), json.dumps(line).encode(), self.seed)
                with Results(Path("bad"), {"a": 1}):
                    pass

            yield Case("record of results", f"file, {kind}", spoil)
        for kind in ("NUL", "too long", "below a file", "device"):
            yield Case("record of results", kind, lambda n=NAMES[kind]: Results(Path(n), {"a": 1}), refused=True)

    def _recipes(self) -> Iterator[Case]:
        from cast_sdk.training.engine.recipe.files import load_recipe
        from cast_sdk.training.engine.recipe.knobs import knobs
        from cast_sdk.training.engine.recipe.settings import Recipe

        for kind in FILES:

            def act(kind: str = kind) -> object:
                data = self.good["recipe"].read_bytes()
                return load_recipe(str(write_file(kind, Path("bad.yaml"), data, self.seed)))

            yield Case("recipe", f"file, {kind}", act)
        for kind, name in NAMES.items():
            yield Case("recipe", f"name, {kind}", lambda n=name: load_recipe(f"{n}.yaml"), refused=True)
        for knob in knobs(Recipe()):
            for kind in ("minus one", "nothing", "nan", "word", "quote", "pattern", "surrogate"):
                setting = f"{knob}={WORDS[kind]}"
                yield Case(f"--set {knob}", kind, lambda s=setting: load_recipe("tiny_supervised", [s]))

    def _resumes(self) -> Iterator[Case]:
        from cast_sdk.training.engine.checkpointing import RESUME_KEY, load
        from cast_sdk.training.engine.recipe.files import load_recipe

        recipe = load_recipe(str(self.good["recipe"])).to_dict()
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

    def _exports(self) -> Iterator[Case]:
        from cast_sdk.export import export_onnx
        from cast_sdk.models import load_model

        model = load_model(self.good["checkpoint"])
        for option in ("batch", "image_size", "superpixels", "precision", "images", "calibrate", "target"):

            def act(value: Any, option: str = option) -> object:
                more = {"precision": "int8"} if option in ("calibrate", "target") else {}
                return export_onnx(model, "new.onnx", **{"verify": option == "images", **more, option: value})

            for kind in ("minus one", "half", "nan", "empty text", "surrogate", "mapping", "object", "true", "complex"):
                yield Case(f"export_onnx({option}=)", kind, lambda v=VALUES[kind], a=act: a(v), refused=True)
        for kind, name in NAMES.items():
            yield Case("export_onnx(path)", kind, lambda n=name: export_onnx(model, n, verify=False))
        yield from self._values("export_onnx(model)", lambda v: export_onnx(v, "new.onnx"))

    # ---------------------------------------------------------------- the network

    def _web(self) -> Iterator[Case]:
        rng = random.Random(self.seed)
        photo = self.good["photo"].read_bytes()
        head = b"host: 127.0.0.1\r\n"
        post = b"POST /api/segment HTTP/1.1\r\n" + head
        requests = {
            "nothing": b"\r\n\r\n",
            "noise": rng.randbytes(3000),
            "not UTF-8": b"GET /\xff\xfe HTTP/1.1\r\n" + head + b"\r\n",
            "no host": b"GET / HTTP/1.1\r\n\r\n",
            "foreign host": b"GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n",
            "foreign origin": b"GET / HTTP/1.1\r\n" + head + b"origin: http://[\r\n\r\n",
            "long address": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + head + b"\r\n",
            "many headers": b"GET / HTTP/1.1\r\n" + head + b"x: y\r\n" * 5000 + b"\r\n",
            "two lengths": b"POST /api/segment HTTP/1.1\r\n"
            + head
            + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
            "negative length": post + b"content-length: -1\r\n\r\n",
            "huge length": post + b"content-length: 99999999999\r\n\r\n",
            "odd level": b"GET /api/snapshot.jpg?level=1e99 HTTP/1.1\r\n" + head + b"\r\n",
            "nan": b"GET /api/snapshot.jpg?alpha=nan HTTP/1.1\r\n" + head + b"\r\n",
            "upwards": b"GET /../../etc/passwd HTTP/1.1\r\n" + head + b"\r\n",
            "other method": b"PROPFIND / HTTP/1.1\r\n" + head + b"\r\n",
            "odd cookie": b"GET / HTTP/1.1\r\n" + head + b'cookie: a="\xff;;=;b\r\n\r\n',
            "socket without key": b"GET /api/stream HTTP/1.1\r\n"
            + head
            + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
            "chunks": post + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        }
        for kind, data in requests.items():
            yield Case("web", kind, lambda d=data: self._ask(d))
        for kind in FILES:
            if kind not in ("folder", "missing", "dangling link", "link to itself", "pipe"):

                def act(kind: str = kind) -> None:
                    body = write_file(kind, Path("bad.png"), photo, self.seed).read_bytes()
                    Path("bad.png").unlink()
                    line = f"POST /api/segment HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
                    self._ask(line.encode() + body)

                yield Case("web, photograph", kind, act)

    def _ask(self, data: bytes) -> None:
        """Send bytes to a live page and look at the answer; then a good request must be answered well."""
        from cast_sdk.runtime.camera.server import WebView

        with StandIn() as rt:
            view = WebView(rt, port=0)
            try:
                answer = _exchange(view.port, data)
                if answer and not answer.startswith(b"HTTP/1.1 "):
                    raise AssertionError(f"an answer that is not HTTP: {answer[:80]!r}")
                if b"Traceback" in answer or answer.startswith(b"HTTP/1.1 500"):
                    raise AssertionError(answer[:400])
                good = b"GET /api/status HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
                if not _exchange(view.port, good).startswith(b"HTTP/1.1 200"):
                    raise AssertionError("no good answer afterwards")
                if not answer.startswith(b"HTTP/1.1 2"):
                    raise Refused(answer[:40].decode("latin-1") or "closed")
            finally:
                view.close()


def _exchange(port: int, data: bytes) -> bytes:
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line, contextlib.suppress(ConnectionError):
        line.sendall(data)  # it may hang up before all is sent
        line.shutdown(socket.SHUT_WR)
        while part := line.recv(65536):
            answer += part
    return answer


def _option(name: str) -> Callable[[Any], object]:
    return lambda value: Runtime(**{name: value}).close()


def _run_once(path: Path, **options: Any) -> None:
    with Runtime(path, **options) as runtime:
        _sound(runtime.segment(np.zeros((48, 64, 3), np.uint8)))


def _sound(result: cast_sdk.Segmentation) -> cast_sdk.Segmentation:
    """A result that is one: finite numbers, labels in range at the frame's size, levels that nest."""
    assert all(np.isfinite(value).all() for value in result.outputs.values() if value.dtype.kind == "f")
    for level in range(result.num_levels + 1):
        labels = result.labels(level)
        assert labels.shape == result.size and labels.max() < result.num_segments(level) and labels.min() >= -1
        if level < result.num_levels:
            assert len(result.parents(level)) == result.num_segments(level)
    assert all(0 <= probability <= 1 for _, _, probability in result.top())
    json.loads(result.to_json())
    return result


def _encoded(suffix: str, image: np.ndarray) -> bytes:
    import cv2

    done, data = cv2.imencode(suffix, image)
    assert done
    return bytes(data)


def _film(path: Path) -> bytes:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for shade in range(3):
        writer.write(np.full((48, 64, 3), 60 * shade, np.uint8))
    writer.release()
    return path.read_bytes()


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


__all__ = ["Doors", "invoke"]
