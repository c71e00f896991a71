"""Labelled data of people's own: LabelMe and COCO files, masks, shards and class folders with one thing wrong."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostile_harness import Case
from hostile_inputs import FILES, spoiled, write_file

if TYPE_CHECKING:
    from hostile_doors import Doors

_SHAPE = {"label": "a", "points": [[1, 1], [20, 1], [20, 20]], "shape_type": "polygon"}
_LABELME = {"version": "5", "shapes": [_SHAPE], "imagePath": "0.png", "imageHeight": 60, "imageWidth": 80}
_COCO = {
    "images": [{"id": number, "file_name": f"{number}.png", "height": 60, "width": 80} for number in range(3)],
    "categories": [{"id": 1, "name": "a"}],
    "annotations": [
        {"id": n, "image_id": n, "category_id": 1, "segmentation": [[1, 1, 20, 1, 20, 20]], "area": 9} for n in range(3)
    ],
}
_RUNS = {
    "text": "zz", "huge": [10**18], "negative": [-5, 4805], "words": ["a"], "null": None, "number": 5, "nested": [[1]],
    "too large": [2**80],
}  # fmt: skip


def cases(doors: Doors) -> Iterator[Case]:
    """All of them."""
    photo = doors.good["photo"].read_bytes()

    def images(folder: str = "bad") -> None:
        Path(folder).mkdir()
        for number in range(3):
            Path(folder, f"{number}.png").write_bytes(photo)

    def drawn(name: str, text: str) -> None:
        images()
        Path("bad", name).write_text(text, errors="surrogatepass")
        _draw(Path("bad"))

    for what, text in spoiled(json.dumps(_LABELME)):
        yield Case("LabelMe", what, lambda t=text: drawn("0.json", t))
    for what, text in spoiled(json.dumps(_SHAPE)):
        whole = json.dumps({**_LABELME, "shapes": ["here"]}).replace('"here"', text)
        yield Case("LabelMe, shape", what, lambda t=whole: drawn("0.json", t))
    for what, text in spoiled(json.dumps(_COCO)):
        yield Case("COCO", what, lambda t=text: drawn("all.json", t))
    for part in ("images", "annotations", "categories"):
        entries: list[Any] = list(_COCO[part])  # type: ignore[call-overload]
        for what, text in spoiled(json.dumps(entries[0])):
            whole = json.dumps({**_COCO, part: ["here", *entries[1:]]}).replace('"here"', text)
            yield Case(f"COCO, {part}", what, lambda t=whole: drawn("all.json", t))
    for kind, counts in _RUNS.items():
        for size in ([60, 80], [10**9, 10**9], None, ["a"], 5):
            mask = {"counts": counts, "size": size}
            text = json.dumps({**_COCO, "annotations": [{**_COCO["annotations"][0], "segmentation": mask}]})  # type: ignore[dict-item]
            yield Case("COCO, run lengths", f"{kind} of {size}", lambda t=text: drawn("all.json", t), True)
    yield from _masks(doors, photo)
    yield from _classes(doors, photo)


def _masks(doors: Doors, photo: bytes) -> Iterator[Case]:
    good = (doors.good["labels"] / "photo.png").read_bytes()
    for kind in FILES:

        def act(kind: str = kind) -> None:
            for name in ("images", "masks"):
                Path("bad", name).mkdir(parents=True)
                for number in range(3):
                    Path("bad", name, f"{number}.png").write_bytes(photo if name == "images" else good)
            Path("bad", "masks", "1.png").unlink()
            write_file(kind, Path("bad", "masks", "1.png"), good, doors.seed)
            _draw(Path("bad"))

        yield Case("mask of an image", f"file, {kind}", act)


def _classes(doors: Doors, photo: bytes) -> Iterator[Case]:
    from cast_sdk.training.data.sources import open_source

    def read(make: Callable[[], object]) -> None:
        make()
        source = open_source(Path("bad"), "train")
        for index in range(len(source)):
            source.read(index)

    for label in ("1" + "0" * 30, "9" * 6000, "-1", "cat", "", "4000000", "1.5", "\u0663", "nan", "0x3"):
        made = lambda text=label: _shard([("0.png", photo), ("0.cls", text.encode())])  # noqa: E731
        yield Case(
            "shard of a data set", f"label {label[:9]}", lambda m=made: read(m), label not in ("4000000", "\u0663")
        )
    whole = _tar([("0.png", photo), ("0.cls", b"0")])
    for kind in FILES:

        def shard(kind: str = kind) -> None:
            Path("bad").mkdir()
            write_file(kind, Path("bad", "train-0.tar"), whole, doors.seed)

        def among(kind: str = kind) -> None:
            for name in "ab":
                Path("bad", "train", name).mkdir(parents=True)
                Path("bad", "train", name, "0.png").write_bytes(photo)
            write_file(kind, Path("bad", "train", "a", "1.png"), photo, doors.seed)

        yield Case("shard of a data set", f"file, {kind}", lambda m=shard: read(m))
        yield Case("image of a class", f"file, {kind}", lambda m=among: read(m), kind in ("pipe", "dangling link"))


def _tar(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _shard(members: list[tuple[str, bytes]]) -> None:
    os.mkdir("bad")  # noqa: PTH102
    Path("bad", "train-0.tar").write_bytes(_tar(members))


def _draw(data: Path) -> None:
    """Find the masks of a folder and draw all of them."""
    from cast_sdk.training.own.dense.finding import find_masked

    masked = find_masked(data, "background")
    for draw in masked.masks:
        assert draw((60, 80)).shape == (60, 80)
