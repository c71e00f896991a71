"""Doors that make results: models, frames, sources, the results themselves and superpixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hostile_good import encoded, film, run_once, sound
from hostile_harness import Case
from hostile_inputs import FILES, NAMES, frames, write_file

from cast_sdk.runtime import Runtime
from cast_sdk.runtime.output.recorder import Recorder

if TYPE_CHECKING:
    from hostile_doors import Doors


def cases(doors: Doors) -> Iterator[Case]:
    """All of them."""
    for part in (models, frames_, sources, results, superpixels):
        yield from part(doors)


def models(doors: Doors) -> Iterator[Case]:
    model, checkpoint = doors.good["model"].read_bytes(), doors.good["checkpoint"].read_bytes()
    yield from doors.files("Runtime(.onnx)", ".onnx", model, run_once)
    yield from doors.files("Runtime(.safetensors)", ".safetensors", checkpoint, run_once)
    yield from doors.files("Runtime(.pth)", ".pth", doors.good["state"].read_bytes(), run_once)
    for suffix in (".engine", ".ep", ".pt", ".xyz", ""):
        yield from doors.files(f"Runtime({suffix})", suffix, model, run_once)
    yield from doors.files("Runtime(.onnx), OpenVINO", ".onnx", model, lambda p: run_once(p, backend="openvino"))
    yield from doors.values("Runtime(model)", lambda value: Runtime(value).close())
    for option, known in (
        ("backend", ()),
        ("device", ()),
        ("fit", ()),
        ("threads", ()),
        ("spinning", ("true",)),
        ("nothing", ()),
    ):
        act = _option(option)
        yield from doors.values(f"Runtime({option}=)", act, known)


def frames_(doors: Doors) -> Iterator[Case]:
    rt = doors.runtime
    usual = ("one pixel", "one row", "grey", "backwards", "masked", "matrix", "read only")
    for kind, frame in frames().items():
        refused = kind not in usual
        yield Case("segment(array)", kind, lambda f=frame: sound(rt.segment(f)), refused)
        yield Case("stream([array])", kind, lambda f=frame: [sound(r) for r in rt.stream([f])], refused)
        yield Case("segment_batch([array])", kind, lambda f=frame: rt.segment_batch([f]), refused)
        yield Case("segment_batch(array)", kind, lambda f=frame: rt.segment_batch(f), kind != "batch")
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
        data = encoded(suffix, np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8))
        for kind in FILES:

            def act(kind: str = kind, suffix: str = suffix, data: bytes = data) -> object:
                return sound(rt.segment(str(write_file(kind, Path(f"bad{suffix}"), data, doors.seed))))

            # A decoder may know what a file lacks at its end, or read a picture without its first bytes.
            sure = not any(word in kind for word in ("changed", "nearly", "head"))
            yield Case(f"segment({suffix})", f"file, {kind}", act, refused=sure)
    for kind, name in NAMES.items():
        yield Case("segment(name)", kind, lambda name=name: rt.segment(name), refused=True)


def sources(doors: Doors) -> Iterator[Case]:
    rt = doors.runtime

    def look(source: Any, **options: Any) -> None:
        with rt.stream(source, **options) as results:
            for index, result in enumerate(results):
                sound(result)
                if index == 2:
                    break

    clip = film(doors.folder / "clip.avi")
    for suffix in (".avi", ".png"):
        data = clip if suffix == ".avi" else doors.good["photo"].read_bytes()
        for kind in FILES:

            def act(kind: str = kind, suffix: str = suffix, data: bytes = data) -> object:
                return look(write_file(kind, Path(f"bad{suffix}"), data, doors.seed))

            sure = not any(word in kind for word in ("changed", "nearly", "head"))
            yield Case(f"stream({suffix})", f"file, {kind}", act, refused=sure)
    yield from doors.values("stream(source)", look, ("list",))
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

        yield from doors.values(f"stream({option}=)", options, usual.get(option, ()))


def results(doors: Doors) -> Iterator[Case]:
    result = doors.result
    yield from doors.values("labels", result.labels)
    yield from doors.values("num_segments", result.num_segments)
    yield from doors.values("mask(level)", lambda v: result.mask(v, 0))
    yield from doors.values("mask(segment)", lambda v: result.mask(1, v))
    yield from doors.values("parents", result.parents)
    yield from doors.values("tracks", result.tracks)
    yield from doors.values("top(count)", result.top, ("two to the 32", "two to the 70"))
    yield from doors.values("top(level)", lambda v: result.top(level=v))
    yield from doors.values("class_name", result.class_name)
    yield from doors.values("plot(level)", result.plot, ("list",))
    yield from doors.values("plot(alpha)", lambda v: result.plot(1, alpha=v))
    assert result.hierarchy is not None
    yield from doors.values("children(level)", lambda v: result.hierarchy.children(v, 0))
    yield from doors.values("children(segment)", lambda v: result.hierarchy.children(1, v))
    yield from doors.values("ancestors", lambda v: result.hierarchy.ancestors(0, v))
    for suffix in (".png", ".json", ".xyz", ""):
        for kind, name in NAMES.items():
            if kind not in ("dash", "pattern", "address", "kind of address", "empty"):
                path = name if kind == "device" else f"{name}{suffix}"
                refused = kind != "not UTF-8" or suffix not in (".png", ".json")
                yield Case(f"save({suffix})", kind, lambda p=path: result.save(p), refused)
    yield from doors.values("Recorder(rate)", lambda v: Recorder("film.avi", rate=v).close(), ("half",))
    for kind, name in NAMES.items():
        yield Case("Recorder(path)", kind, lambda p=name: Recorder(f"{p}.avi" if p else p).close())


def superpixels(doors: Doors) -> Iterator[Case]:
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
        yield from doors.values(f"seeds({option}=)", lambda v, o=option: superpixels.seeds(good, **{o: v}))
    yield from doors.values("seeds_batch(threads)", lambda v: superpixels.seeds_batch([good], 16, threads=v),
                            ("two to the 32", "two to the 70"))  # fmt: skip
    yield from doors.values("seeds_batch(out)", lambda v: superpixels.seeds_batch([good], 16, out=v))
    yield from doors.values("continue_seeds(passes)", lambda v: superpixels.continue_seeds(good, before, 16, passes=v))
    yield from doors.values("seeds_count(height)", lambda v: superpixels.seeds_count(v, 64, 16))
    yield from doors.values("seeds_count(count)", lambda v: superpixels.seeds_count(48, 64, v))


def _option(name: str) -> Callable[[Any], object]:
    return lambda value: Runtime(**{name: value}).close()
