"""Each module of the page in Node beside the Python code whose results it must give."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import shutil
import subprocess
import zlib
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pictures
import pytest
from browser import missing
from foreign_graphs import PLAIN, foreign, with_fields
from PIL import Image

from cast_sdk import Runtime
from cast_sdk.artifact import INFO_KEY, SPEC_KEY
from cast_sdk.bundled import path as bundled
from cast_sdk.bundled import photos
from cast_sdk.decoding.orientation import upright as orientation_rule
from cast_sdk.errors import InputError, MissingDependencyError
from cast_sdk.export.web import assemble
from cast_sdk.export.web.onnxruntime_web import WASM, find_runtime
from cast_sdk.hierarchy import Hierarchy
from cast_sdk.runtime.engine.onnx_metadata import read_metadata
from cast_sdk.runtime.output.colours import hierarchy_colours
from cast_sdk.runtime.output.page import page_folder
from cast_sdk.runtime.preprocess import fit_geometry, resize
from cast_sdk.runtime.result import Segmentation
from cast_sdk.spec import ModelSpec, SuperpixelSettings
from cast_sdk.superpixels import merged_levels, superpixels_for
from cast_sdk.superpixels.grid import seeds_grid

PAGE = assemble.PAGE
KERNEL = PAGE.with_name(assemble.KERNEL)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Run a stage of `stages.mjs` on bytes or JSON; gives JSON, or bytes for a stage that writes them."""
    program = shutil.which("node") or missing("needs Node.js (apt-get install -y nodejs)")
    folder = tmp_path_factory.mktemp("modules")
    for file in [*PAGE.glob("*.js"), *page_folder().glob("*.js"), Path(__file__).with_name("stages.mjs")]:
        shutil.copy(file, folder)
    (folder / "package.json").write_text('{"type": "module"}')

    def run(stage: str, data, *, raw: bool = False):
        (folder / "input").write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        command = [program, "stages.mjs", stage, "input", "output"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        output = (folder / "output").read_bytes()
        return output if raw else json.loads(output)

    return run


def packed(array: np.ndarray) -> str:
    return coded(np.ascontiguousarray(array).tobytes())


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def picture(rng: np.random.Generator, height: int, width: int, *, smooth: bool) -> np.ndarray:
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(image, (9, 9), 3) if smooth else image


def test_lab_on_all_colours(node):
    colour = np.arange(1 << 24, dtype=np.uint32)
    image = np.stack([colour >> 16, colour >> 8 & 255, colour & 255], -1).astype(np.uint8).reshape(4096, 4096, 3)
    found = np.frombuffer(node("lab", b"", raw=True), np.uint8).reshape(image.shape)
    assert int((found != cv2.cvtColor(image, cv2.COLOR_RGB2LAB)).sum()) == 0


def test_resize_as_the_runtime(node):
    rng = np.random.default_rng(0)
    sizes = [tuple(int(v) for v in rng.integers(1, 500, 2)) for _ in range(40)]
    sizes += [(96, 96), (192, 192), (288, 192), (96, 300), (500, 96), (48, 48), (48, 192), (960, 97), (1, 1), (97, 96)]
    cases, expected = [], []
    for number, (height, width) in enumerate(sizes):
        target = (96, 96) if number % 2 else (128, 64)
        image = picture(rng, height, width, smooth=number % 3 == 0)
        opaque = np.dstack([image, np.full((height, width), 255, np.uint8)]) if number % 4 else image
        shape = {"width": width, "height": height, "channels": opaque.shape[2], "target": target}
        shape["cubic"] = cubic = number % 5 < 2
        cases.append({"data": packed(opaque), **shape})
        expected.append(resize(image[..., ::-1], fit_geometry((height, width), target, "stretch"), cubic=cubic))
    for size, found, wanted in zip(sizes, node("resize", cases), expected, strict=True):
        assert base64.b64decode(found) == wanted.tobytes(), size


SETTINGS = (
    SuperpixelSettings(196, 15, 20),
    SuperpixelSettings(100, 5, 15),
    SuperpixelSettings(64, 5, 5, invert=True),
    SuperpixelSettings(50, 16, 3),
    SuperpixelSettings(400, 1, 0),
)


def seeds_cases() -> tuple[list[dict], list[np.ndarray]]:
    rng = np.random.default_rng(1)
    cases, expected = [], []
    for number, (height, width) in enumerate([(96, 96), (128, 128), (224, 224), (130, 97), (61, 200), (224, 224)]):
        for settings in SETTINGS if number < 5 else SETTINGS[:1]:
            image = picture(rng, height, width, smooth=number % 2 == 0)
            more = {"width": width, "height": height, "settings": dataclasses.asdict(settings)}
            cases.append({"data": packed(image), **more})
            expected.append(superpixels_for(image, settings))
    return cases, expected


def check_seeds(node, kernel: Path) -> None:
    cases, expected = seeds_cases()
    for one, wanted in zip(node("seeds", {"file": str(kernel), "cases": cases}), expected, strict=True):
        assert np.array_equal(np.reshape(one, wanted.shape), wanted)


SEGMENTS = (32, 16, 8, 4)


def random_assignments(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    sizes = pairwise((count, *SEGMENTS))
    return [rng.dirichlet(np.full(into, 0.2), tokens).astype(np.float32) for tokens, into in sizes]


def merging_case(rng: np.random.Generator, count: int) -> tuple[dict, list[np.ndarray]]:
    """A picture with its superpixels, of which `count` says how many the network knows, and the levels of it."""
    image = picture(rng, 96, 128, smooth=True)
    superpixels = superpixels_for(image, SuperpixelSettings(100, 5, 5))
    assignments = random_assignments(rng, count)
    case = {"data": packed(image), "labels": packed(superpixels), "assignments": [packed(a) for a in assignments]}
    return case, merged_levels(image, superpixels, assignments)


def merging_job(kernel: Path, count: int, cases: list[dict]) -> dict:
    info = {"height": 96, "width": 128, "num_superpixels": count}
    return {"file": str(kernel), "segments": SEGMENTS, "info": info, "cases": cases}


def check_merging(node, kernel: Path) -> None:
    rng, count = np.random.default_rng(6), 110  # of which some have no pixel
    cases, expected = zip(*[merging_case(rng, count) for _ in range(8)], strict=True)
    found = node("merging", merging_job(kernel, count, list(cases) * 10))
    for one, wanted in zip(found, expected * 10, strict=True):
        assert one["levels"] == [level.tolist() for level in wanted]
    assert found[0]["held"] == found[-1]["held"], "frame after frame in the same memory"


def test_the_committed_kernel_is_seeds_and_merging(node):
    check_seeds(node, KERNEL)
    check_merging(node, KERNEL)


def test_merging_refuses_what_is_not_the_models(node):
    case, _ = merging_case(np.random.default_rng(7), 110)
    for change, count, sentence in (
        ({}, 111, "another graph than it holds: assignment1 of that one has 3520 numbers, not 3552"),
        ({"labels": packed(np.full(96 * 128, 110, np.int32))}, 110, "takes 110 superpixels, and there is one more"),
    ):
        with pytest.raises(AssertionError, match=sentence):
            node("merging", merging_job(KERNEL, count, [case | change]))


def test_levels_are_those_of_the_runtime(node, graph):
    """The page's engine and Python's on photographs that OpenCV reads."""
    try:
        runtime = find_runtime(None, WASM, print)
    except MissingDependencyError as error:
        missing(str(error))
    images = [cv2.imread(str(path)) for path in photos()]
    pictures = [
        {"data": packed(cv2.cvtColor(image, cv2.COLOR_BGR2RGBA)), "width": image.shape[1], "height": image.shape[0]}
        for image in images
    ]
    parts = {"graph": graph, "kernel": KERNEL, "script": runtime.script, "binary": runtime.binary}
    found = node("engine", {**{name: str(path) for name, path in parts.items()}, "pictures": pictures})
    with Runtime(graph, threads=1) as rt:
        for image, one in zip(images, found, strict=True):
            wanted = rt.segment(image).hierarchy
            assert one["superpixels"] == wanted.superpixels.ravel().tolist()
            assert one["members"] == [member.tolist() for member in wanted.members]


def provider_job(grouping: str, changes: list[str | None]) -> dict:
    rng, count, side = np.random.default_rng(8), 100, 128
    spec = dataclasses.replace(
        ModelSpec("small", "cast", 8, (1, 1, 1, 1), 1, SEGMENTS, 12, side, 16, grouping=grouping),
        superpixels=SuperpixelSettings(count, 5, 5),
    )
    outputs = {f"level{n}": level for n, level in enumerate(random_levels(rng, count, SEGMENTS), 1)}
    outputs |= {f"assignment{n}": matrix.ravel() for n, matrix in enumerate(random_assignments(rng, count), 1)}
    outputs |= {"logits": rng.standard_normal(12), "embedding": rng.standard_normal(8)}
    image = np.dstack([picture(rng, side, side, smooth=True), np.full((side, side), 255, np.uint8)])
    return {
        "file": str(KERNEL),
        "spec": spec.to_dict(),
        "info": {"height": side, "width": side, "num_superpixels": count},
        "data": packed(image),
        "outputs": {name: numbers.tolist() for name, numbers in outputs.items()},
        "changes": changes,
    }


def test_another_provider_is_judged_by_the_levels_that_are_shown(node):
    for grouping, shown, unused in (("assigned", "level1", "assignment1"), ("merged", "assignment1", "level1")):
        same, unseen, moved = node("provider", provider_job(grouping, [None, unused, shown]))
        assert same == unseen == [True, ""]
        assert not moved[0] and "superpixels are in another segment of level 1" in moved[1]


def test_numbers_that_are_not_finite_are_refused(node):
    job = provider_job("merged", [None])
    job["outputs"]["assignment2"][3] = 1e39  # infinite as float32
    with pytest.raises(AssertionError, match="not finite"):
        node("provider", job)


@pytest.mark.full
def test_the_kernel_built_again_is_seeds_and_merging(node, tmp_path):
    """`make kernel` with the pinned compiler gives a kernel with the same results."""
    root = Path(__file__).parents[2]
    if not (root / "build" / "zig" / ".done").exists():
        missing("needs the compiler (make build/zig/.done)")
    kernel = tmp_path / "kernel.wasm"
    done = subprocess.run(["make", "kernel", f"KERNEL={kernel}"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    check_seeds(node, kernel)
    check_merging(node, kernel)


def test_grid(node):
    rng = np.random.default_rng(2)
    asked = [[int(v) for v in (*rng.integers(1, 400, 2), rng.integers(1, 900))] for _ in range(300)]
    possible = 0
    for (height, width, count), found in zip(asked, node("grid", asked), strict=True):
        try:
            grid = seeds_grid(height, width, count)
        except InputError:
            assert found is None, (height, width, count)
            continue
        possible += 1
        assert found == {"blockRows": grid.block_rows, "blockColumns": grid.block_columns, "count": grid.count}
    assert 50 < possible < 290


def random_levels(rng: np.random.Generator, count: int, clusters: tuple[int, ...]) -> list[np.ndarray]:
    levels, below = [], np.arange(count)
    for size in clusters:
        parent = rng.integers(0, size, int(below.max()) + 1)
        below = parent[below]
        levels.append(below.astype(np.int32))
    return levels


def test_hierarchy_and_colours(node):
    rng = np.random.default_rng(3)
    cases, expected = [], []
    for number in range(12):
        height, width, count = (37, 53, 30) if number else (4, 4, 200)
        labels = rng.integers(0, count, (height, width), np.int32)
        levels = random_levels(rng, count, (16, 8, 4, 2)[: 4 - number % 3] if number else (1, 1, 1, 1))
        case = {"labels": labels.ravel().tolist(), "levels": [level.tolist() for level in levels]}
        cases.append({**case, "map": [height, width]})
        expected.append(Hierarchy.from_labels(labels, levels))
    for found, wanted in zip(node("hierarchy", cases), expected, strict=True):
        assert found["superpixels"] == wanted.superpixels.ravel().tolist()
        assert found["members"] == [member.tolist() for member in wanted.members]
        assert found["ids"] == [ids.tolist() for ids in wanted.ids]
        assert found["parents"] == [wanted.parents(level).tolist() for level in range(wanted.num_levels)]
        for inks, colours in zip(found["colours"], hierarchy_colours(wanted), strict=True):
            bgr = np.array([[ink >> 16, ink >> 8 & 255, ink & 255] for ink in inks])
            assert np.abs(bgr - colours.astype(int)).max() <= 1, "one step at most, from the last digit of a power"


def test_the_json_is_that_of_python(node):
    rng = np.random.default_rng(4)
    spec = ModelSpec("small", "cast", 8, (1, 1, 1, 1), 1, (16, 8, 4, 2), 12, 24, 3, class_names=("one", "two"))
    labels = np.kron(rng.integers(0, 30, (8, 12)), np.ones((2, 2), int)).astype(np.int32)
    levels = random_levels(rng, 30, spec.clusters)
    logits, embedding = rng.standard_normal(12).astype(np.float32), rng.standard_normal(8).astype(np.float32) * 1e-3
    timing = {"preprocess": 1.23456, "total": 2.0}
    hierarchy, sizes = Hierarchy.from_labels(labels, levels), ((50, 70), (16, 24), (5, 3), (1, 1))
    arrays = {"labels": labels.ravel(), "logits": logits, "embedding": embedding}
    case = {"spec": spec.to_dict(), "levels": [level.tolist() for level in levels], "map": labels.shape}
    case |= {name: value.tolist() for name, value in arrays.items()}
    results = node("result", [{**case, "size": size, "timing": timing} for size in sizes])
    for size, found in zip(sizes, results, strict=True):
        geometry, outputs = fit_geometry(size, labels.shape, "stretch"), {"logits": logits, "embedding": embedding}
        assert found == Segmentation(spec, geometry, hierarchy, outputs, timing=timing).to_dict()


def test_unsure_and_temperature(node):
    case = {"labels": [0, 1], "levels": [[0, 0]], "map": [1, 2], "size": [1, 2], "embedding": [0.0], "timing": {}}
    case |= {"logits": [2.0, 0.0], "spec": {"name": "small", "clusters": [1], "class_names": ["one", "two"]}}
    calibrated = {**case, "spec": {**case["spec"], "temperature": 4.0, "unsure_below": 0.7}}
    plain, softer = node("result", [case, calibrated])
    assert plain["top"][0]["probability"] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)
    assert softer["top"][0]["probability"] == pytest.approx(1 / (1 + np.exp(-0.5)), abs=1e-6)
    assert softer["unsure"] and not plain["unsure"]


def test_levels_that_do_not_nest_are_refused(node):
    case = {"labels": [0, 1, 2], "levels": [[0, 0, 1], [0, 1, 1]], "map": [1, 3]}
    with pytest.raises(AssertionError, match="do not nest"):
        node("hierarchy", [case])


def test_description_of_a_graph(node):
    (found,) = node("description", [coded(bundled("cast_tiny.onnx").read_bytes())])
    assemble.check_graph(bundled("cast_tiny.onnx"))
    assert found["spec"] == json.loads(read_metadata(bundled("cast_tiny.onnx"))[SPEC_KEY])
    assert found["info"]["outputs"][:2] == ["embedding", "logits"]


def test_a_description_may_be_older_than_merging(node):
    def without_grouping(text: str) -> str:
        return json.dumps({key: value for key, value in json.loads(text).items() if key != "grouping"})

    older = foreign(**{SPEC_KEY: without_grouping, INFO_KEY: with_fields(outputs=PLAIN)})
    (found,) = node("description", [coded(older)])
    assert found["info"]["outputs"] == PLAIN


def test_a_graph_that_is_not_ours_gets_a_sentence(node):
    cases = [
        (foreign(**{SPEC_KEY: None}), "not exported by cast_sdk"),
        (foreign(**{SPEC_KEY: lambda text: text[:-9]}), "is damaged"),
        (foreign(**{SPEC_KEY: with_fields(schema_version=9)}), "schema 1"),
        (foreign(**{SPEC_KEY: with_fields(clusters=[])}), "classify"),
        (foreign(**{INFO_KEY: with_fields(outputs=["embedding", "level1"])}), "classify"),
        (foreign(**{SPEC_KEY: with_fields(grouping="guessed")}), "assigned or merged, not guessed"),
        (
            foreign(**{SPEC_KEY: with_fields(grouping="merged"), INFO_KEY: with_fields(outputs=PLAIN)}),
            "cannot be merged: its graph has no assignment1, assignment2, assignment3, assignment4",
        ),
        (foreign(**{INFO_KEY: with_fields(batch=4)}), "one image at a time"),
        (foreign()[:-100], "damaged or no .onnx"),
        (b"<!doctype html><title>404</title>", "damaged or no .onnx"),
        (b"", "not exported by cast_sdk"),
    ]
    found = node("description", [coded(data) for data, _ in cases])
    for (_, message), answer in zip(cases, found, strict=True):
        assert message in answer["refused"] and answer["ours"] == "PageError"


def saved(form: str, size=(90, 60), **options) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA" if options.pop("alpha", False) else "RGB", size, (200, 90, 40)).save(file, form, **options)
    return file.getvalue()


def test_stated_sizes(node):
    files = {
        "jpeg": [saved("JPEG"), saved("JPEG", progressive=True, exif=b"Exif\0\0" + b"x" * 500)],
        "png": [saved("PNG")],
        "webp": [saved("WEBP", lossless=True), saved("WEBP"), saved("WEBP", alpha=True, exif=b"x" * 9)],
    }
    cases = [(data, kind) for kind, made in files.items() for data in made]
    for (_, kind), found in zip(cases, node("measure", [coded(data) for data, _ in cases]), strict=True):
        assert found == {"type": f"image/{kind}", "width": 90, "height": 60}
    cut = [data[:length] for data, _ in cases for length in (0, 1, 3, 11, 13, 17)]
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    others = [svg, saved("GIF"), saved("BMP"), b"\xff\xd8" + b"\xff" * 90]
    assert set(node("measure", [coded(data) for data in cut + others])) == {None}


def test_orientation_is_taken_out_and_obeyed(node):
    tagged = [saved(form, exif=pictures.exif(n)) for form in ("PNG", "WEBP") for n in (1, 6, 8)]
    cases = zip(tagged, node("oriented", [coded(data) for data in tagged]), strict=True)
    for (data, (found, orientation)), expected in zip(cases, [1, 6, 8] * 2, strict=True):
        before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(base64.b64decode(found)))
        assert before.getexif().get(0x0112) == expected == orientation and 0x0112 not in after.getexif()
        assert np.array_equal(np.asarray(before), np.asarray(after))
    image = pictures.RGBA
    turned = node("upright", [[packed(image), image.shape[1], image.shape[0], n] for n in range(1, 9)])
    for n, (found, width, height) in enumerate(turned, 1):
        pixels = np.frombuffer(base64.b64decode(found), np.uint8).reshape(height, width, 4)
        assert np.array_equal(pixels, orientation_rule(image, n))


def interlaced(image: np.ndarray) -> bytes:
    """A PNG of 16 bits in seven passes, without filters."""
    height, width, channels = image.shape
    passes = [(0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)]
    parts = [image[top::down, left::across].astype(">u2") for left, across, top, down in passes]
    lines = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 1])
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_deep_png_files(node):
    rng = np.random.default_rng(5)
    steps = rng.integers(-300, 300, (45, 61, 4)).cumsum(0).cumsum(1)
    rgba = np.clip(steps + 30000, 0, 65535).astype(np.uint16)
    files, expected = [], []
    for channels in (1, 3, 4):
        image = rgba[..., :channels]
        for kind in (8, 16, 32, 64, 128, 248):  # each filter alone, and chosen by the row; old versions always choose
            filters = [cv2.IMWRITE_PNG_FILTER, kind] if hasattr(cv2, "IMWRITE_PNG_FILTER") else []
            files.append(cv2.imencode(".png", image, filters)[1].tobytes())
            expected.append(image)
        files.append(interlaced(image[..., [2, 1, 0, 3][:channels]] if channels > 1 else image))
        expected.append(image)
    key = pictures.chunk(b"tRNS", rgba[3, 4, :3].astype(">u2").tobytes())
    marked = pictures.png(rgba[..., :3], 2, 16, key)
    (clear,) = node("deep", [coded(marked)])
    opacity = np.frombuffer(base64.b64decode(clear), np.uint8).reshape(45, 61, 4)[..., 3]
    assert np.array_equal(opacity == 0, (rgba[..., :3] == rgba[3, 4, :3]).all(-1)) and set(np.unique(opacity)) == {
        0,
        255,
    }
    files.append(cv2.imencode(".png", (rgba >> 8).astype(np.uint8))[1].tobytes())
    *found, shallow = node("deep", [coded(data) for data in files])
    assert shallow is None
    for one, image in zip(found, expected, strict=True):
        rounded = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
        bgr = np.repeat(rounded, 3, 2) if rounded.shape[2] == 1 else rounded[..., :3]
        pixels = np.frombuffer(base64.b64decode(one), np.uint8).reshape(45, 61, 4)
        assert np.array_equal(pixels[..., 2::-1], bgr)
        assert np.array_equal(pixels[..., 3], rounded[..., 3] if rounded.shape[2] == 4 else np.full((45, 61), 255))


def test_another_provider_is_compared(node):
    expected = {"levels": [[0, 1, 2], [0, 0, 1]], "logits": [0.1, 0.9]}
    close = {**expected, "logits": [0.11, 0.89]}
    cases = [close, {**close, "levels": [[0, 1, 2], [0, 1, 1]]}, {**close, "logits": [0.9, 0.1]}]
    same, moved, other = node("difference", [[expected, case] for case in cases])
    assert same is None and "1 superpixels are in another segment of level 2" in moved and "class" in other
