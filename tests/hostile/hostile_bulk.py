"""cast-bulk: list files, tar shards, Parquet files, folders, and data sets that are not what they should be."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from hostile_harness import Case, Refused
from hostile_inputs import FILES, NAMES, WORDS, spoiled, write_file

from cast_sdk.runtime.bulk import job
from cast_sdk.runtime.bulk.dataset import ENDED, INPUTS, MANIFEST, Dataset
from cast_sdk.runtime.bulk.groups import GROUPS
from cast_sdk.runtime.bulk.inputs import Listing
from cast_sdk.runtime.bulk.rows import Rows
from cast_sdk.runtime.bulk.schema import Layout

if TYPE_CHECKING:
    from hostile_doors import Doors

_WRITES = (f"dataset/{ENDED}",)  # it holds the lock of a data set that could not be begun


def cases(doors: Doors) -> Iterator[Case]:
    """All of them."""
    for part in (_lists, _shards, _tables, _folders, _data_sets):
        yield from part(doors)


def _try(door: str, kind: str, make: Callable[[], object], run: Callable[[], None], refused: bool = False) -> Case:
    def act() -> None:
        make()
        run()

    return Case(door, kind, act, refused, _WRITES)


def _lists(doors: Doors) -> Iterator[Case]:
    for suffix, good in ((".txt", b"photo.png\nphoto.png\n"), (".png", doors.good["photo"].read_bytes())):
        for kind in FILES:

            def spoil(kind: str = kind, suffix: str = suffix, good: bytes = good) -> object:
                return write_file(kind, Path(f"bad{suffix}"), good, doors.seed)

            sure = suffix == ".txt" and kind not in ("head", "nearly whole", "bytes changed", "one byte changed")
            yield _try(f"bulk({suffix})", f"file, {kind}", spoil, lambda s=suffix: _run(doors, [f"bad{s}"]), sure)
    for kind, name in NAMES.items():
        yield _try("bulk(name)", kind, int, lambda n=name: _run(doors, [n]), True)
        yield _try("bulk(list)", f"name, {kind}", _writer(name.encode(errors="surrogateescape")), _of_list(doors), True)
    lines = {
        "blank lines": b"\n \n\t\n",
        "one too long": b"photo.png/" * 100_000,
        "this list": b"bad.txt",
        "a folder": b"results",
        "a text": b"notes.txt",
        "upwards": b"../../../../etc/passwd",
        "foreign bucket": b"s3://",
        "chained address": b"zip://a.png::photo.png",
        "two addresses": b"tar://a::tar://b::photo.png",
        "byte order mark": "photo.png".encode("utf-16"),
        "odd returns": b"photo.png\r\r\r\nphoto.png\x0c",
        "a column too many": b"photo.png,3",
        "quoted": b'"photo.png"',
        "a number": b"9" * 5000,
    }
    for kind, line in lines.items():
        yield _try("bulk(list)", kind, _writer(line + b"\n"), _of_list(doors), kind != "odd returns")
    several = b"photo.png\n" + b"\n".join(lines.values()) + b"\nphoto.png\n"
    yield _try("bulk(list)", "all of them among good ones", _writer(several), _of_list(doors))


def _writer(data: bytes, name: str = "bad.txt") -> Callable[[], object]:
    return lambda: Path(name).write_bytes(data)


def _of_list(doors: Doors) -> Callable[[], None]:
    return lambda: _run(doors, ["bad.txt"])


# ---------------------------------------------------------------- shards


def _shards(doors: Doors) -> Iterator[Case]:
    photo = doors.good["photo"].read_bytes()
    whole = _tar([_member("a.png", photo), _member("b.png", photo)])
    for kind in FILES:

        def spoil(kind: str = kind) -> object:
            return write_file(kind, Path("bad.tar"), whole, doors.seed)

        sure = not any(word in kind for word in ("changed", "nearly", "head"))
        yield _try("bulk(.tar)", f"file, {kind}", spoil, lambda: _run(doors, ["bad.tar"]), sure)
    odd: dict[str, bytes] = {
        "link": _tar([_member("a.png", b"", type=tarfile.SYMTYPE, linkname="photo.png")]),
        "hard link": _tar([_member("a.png", b"", type=tarfile.LNKTYPE, linkname="a.png")]),
        "device": _tar([_member("a.png", b"", type=tarfile.CHRTYPE)]),
        "pipe": _tar([_member("a.png", b"", type=tarfile.FIFOTYPE)]),
        "folder": _tar([_member("a.png", b"", type=tarfile.DIRTYPE)]),
        "empty member": _tar([_member("a.png", b"")]),
        "no image": _tar([_member("a.png", b"hello")]),
        "another suffix": _tar([_member("a.dat", photo)]),
        "upwards": _tar([_member("../../a.png", b"hello")]),
        "not UTF-8": _tar([_member("\udcff.png", b"hello")]),
        "lines in a name": _tar([_member("a\nb.png", b"hello")]),
        "long name": _tar([_member("a" * 5000 + ".png", b"hello")]),
        "larger than the file": _tar([_member("a.png", b"x" * 10, size=2**40)]),
        "attribute that is no number": _tar([_member("a.png", b"x", pax_headers={"size": "x"})]),
        "negative attribute": _tar([_member("a.png", b"x", pax_headers={"size": "-5"})]),
        "shard in a shard": _tar([_member("a.tar", whole)]),
        "only the end": bytes(10_240),
        "packed": b"\x1f\x8b\x08" + bytes(50),
    }
    for kind, data in odd.items():
        yield _try("bulk(shard)", kind, _writer(data, "bad.tar"), lambda: _run(doors, ["bad.tar"]), True)
    yield _try("bulk(shard)", "same name twice", _writer(_tar([_member("a.png", photo)] * 2), "bad.tar"),
               lambda: _run(doors, ["bad.tar"]))  # fmt: skip
    for suffix in (".tar.gz", ".tgz", ".tar.zst"):
        yield _try("bulk(shard)", suffix, _writer(whole, f"bad{suffix}"), lambda s=suffix: _run(doors, [f"bad{s}"]),
                   True)  # fmt: skip


def _member(name: str, data: bytes, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def _tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar file of headers and data as they are given, also where they do not agree."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            file.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
            file.write(data + bytes(-len(data) % 512))
        archive.offset = file.tell()
    return file.getvalue()


# ---------------------------------------------------------------- Parquet


def _tables(doors: Doors) -> Iterator[Case]:
    photo = doors.good["photo"].read_bytes()
    good = _parquet(pa.table({"image": pa.array([photo, photo], pa.binary())}))
    for kind in FILES:

        def spoil(kind: str = kind) -> object:
            return write_file(kind, Path("bad.parquet"), good, doors.seed)

        sure = "changed" not in kind
        yield _try("bulk(.parquet)", f"file, {kind}", spoil, lambda: _run(doors, ["bad.parquet"]), sure)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns: dict[str, dict[str, Any]] = {
        "numbers": {"image": [1, 2]},
        "lists of bytes": {"image": pa.array([[photo]], pa.list_(pa.binary()))},
        "nothing but null": {"image": pa.array([None, None], pa.binary())},
        "null type": {"image": pa.nulls(3)},
        "no bytes": {"image": pa.array([b"", b"x"], pa.binary())},
        "no struct": {"image": pa.array([None, {"bytes": None, "path": "a"}], image)},
        "struct without bytes": {"image": pa.array([{"path": "photo.png"}], pa.struct([("path", pa.string())]))},
        "struct of text": {"image": pa.array([{"bytes": "x"}], pa.struct([("bytes", pa.string())]))},
        "two candidates": {"image": [photo], "bytes": [photo]},
        "two paths": {"path": ["photo.png"], "url": ["photo.png"]},
        "another name": {"picture": [photo]},
        "no rows": {"image": pa.array([], pa.binary())},
        "no columns": {},
        "empty paths": {"path": ["", None, " "]},
        "odd paths": {"path": ["a\0b", "x" * 5000, "http://127.0.0.1:9/a", "nothing://a", "..", "/dev/full", "é/\n"]},
        "words": {"path": pa.array(["nowhere.png"]).dictionary_encode()},
        "times": {"image": pa.array([0, 1], pa.timestamp("s"))},
    }
    for kind, table in columns.items():
        data = _parquet(pa.table(table))
        yield _try("bulk(table)", kind, _writer(data, "bad.parquet"), lambda: _run(doors, ["bad.parquet"]), True)
    for kind, kinds in {"fixed size": pa.binary(len(photo)), "large": pa.large_binary()}.items():
        data = _parquet(pa.table({"image": pa.array([photo], kinds)}))
        yield _try("bulk(table)", kind, _writer(data, "bad.parquet"), lambda: _run(doors, ["bad.parquet"]))
    twice = _parquet(pa.table([pa.array([photo]), pa.array([photo])], names=["image", "image"]))
    yield _try("bulk(table)", "a name twice", _writer(twice, "bad.parquet"), lambda: _run(doors, ["bad.parquet"]), True)
    for kind, value in WORDS.items():
        yield _try("bulk(column=)", kind, _writer(good, "bad.parquet"),
                   lambda v=value: _run(doors, ["bad.parquet"], v), True)  # fmt: skip


def _parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


# ---------------------------------------------------------------- folders and data sets


def _folders(doors: Doors) -> Iterator[Case]:
    photo = doors.good["photo"].read_bytes()
    names = {
        "not UTF-8": "\udcff.png",
        "lines": "a\nb.png",
        "an option": "--help.png",
        "a pattern": "[*].png",
        "long": "x" * 251 + ".png",
        "hidden": ".a.png",
        "no suffix": "a",
        "capitals": "A.PNG",
        "an address": "http:x.png",
    }
    for kind, name in names.items():

        def named(name: str = name) -> None:
            Path("bad").mkdir()
            Path("bad", name).write_bytes(photo)

        yield _try("bulk(folder)", f"name, {kind}", named, lambda: _run(doors, ["bad"]), kind == "hidden")
    for kind in FILES:

        def among(kind: str = kind) -> None:
            Path("bad").mkdir()
            Path("bad", "a.png").write_bytes(photo)
            write_file(kind, Path("bad", "b.png"), photo, doors.seed)

        yield _try("bulk(folder)", f"beside a good one, {kind}", among, lambda: _run(doors, ["bad"]))

    def around() -> None:
        Path("bad").mkdir()
        Path("bad", "again").symlink_to("../bad")
        Path("bad", "up").symlink_to("..")

    yield _try("bulk(folder)", "links to itself", around, lambda: _run(doors, ["bad"]))
    yield _try("bulk(folder)", "empty", lambda: Path("bad").mkdir(), lambda: _run(doors, ["bad"]), True)


def _data_sets(doors: Doors) -> Iterator[Case]:
    manifest = {"schema_version": 1, "created_by": "x", "started": "x", "settings": {}, "columns": {}, "complete": True}
    for what, text in spoiled(json.dumps(manifest)):
        yield _of_data_set(doors, "manifest of a data set", what, lambda t=text: _written(MANIFEST, t.encode()))
    for name in (MANIFEST, INPUTS, ENDED, "part-000000.parquet"):
        for kind in FILES:

            def make(name: str = name, kind: str = kind) -> None:
                _begun(doors)
                file = Path("bad", name)
                good = file.read_bytes() if file.exists() else b""
                file.unlink(missing_ok=True)
                write_file(kind, file, good, doors.seed)

            yield _of_data_set(doors, f"{name} of a data set", f"file, {kind}", make)


def _of_data_set(doors: Doors, door: str, kind: str, make: Callable[[], object]) -> Case:
    return _try(door, kind, make, lambda: _run(doors, ["photo.png"], out="bad"))


def _written(name: str, data: bytes) -> None:
    Path("bad").mkdir()
    Path("bad", name).write_bytes(data)


def _begun(doors: Doors) -> None:
    with Dataset(Path("bad"), _layout(doors), {}) as dataset:
        dataset.list_inputs(Listing(["photo.png"]), 4)


def _layout(doors: Doors) -> Layout:
    return Layout.of(doors.runtime, "0" * 64, GROUPS, tokens=False)


def _run(doors: Doors, inputs: list[str], column: Any = None, out: str = "dataset") -> None:
    """A whole data set, in this process; refused where not one image could be used."""
    layout = _layout(doors)
    with Dataset(Path(out), layout, {}) as dataset:
        if not dataset.listed:
            dataset.list_inputs(Listing(inputs, column), 4)
        work = Rows(layout, doors.runtime)
        manifest = job.run(dataset, None, lambda _, tasks, ended: ((task, work(task, int)) for task in tasks))  # type: ignore[arg-type]
    rows = [row for part in manifest["parts"] for row in pq.read_table(Path(out, part["file"])).to_pylist()]
    assert len(rows) == manifest["rows"] and sum(row["error"] is not None for row in rows) == manifest["errors"]
    assert all((row["error"] is None) == (row["class"] is not None) for row in rows)
    assert not any("nobody foresaw" in (row["error"] or "") for row in rows), rows
    if manifest["errors"] == manifest["rows"]:
        for name in os.listdir(out):  # noqa: PTH208
            Path(out, name).unlink()
        raise Refused(rows[0]["error"])
