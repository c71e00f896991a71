"""Where images come from: folders, lists, shards, tables, addresses; and that their bytes are the same from each."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip("pyarrow", reason="pyarrow, of the extra bulk, is not installed")
pytest.importorskip("fsspec", reason="fsspec, of the extra bulk, is not installed")

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from cast_sdk.errors import InputError
from cast_sdk.runtime.bulk.inputs import Item, Listing
from cast_sdk.runtime.bulk.reader import Reader


def read(*inputs: object, column: str | None = None) -> tuple[list[str], list[bytes]]:
    items = list(Listing([os.fspath(one) for one in inputs], column).items())
    reader = Reader()
    return [item.path for item in items], [reader.read(item) for item in items]


@pytest.fixture
def files(folder) -> list[Path]:
    return sorted(path for path in folder.rglob("*.*") if path.is_file())


@pytest.fixture
def contents(files) -> list[bytes]:
    return [path.read_bytes() for path in files]


def test_folders_files_and_patterns(folder, files, contents):
    (folder / "notes.md").write_text("words")
    listing = Listing([str(folder)])
    assert [item.path for item in listing.items()] == [str(path) for path in files]
    assert listing.left_out == ["left out files that are neither image nor video (1): notes.md"]
    paths, data = read(folder / "00.jpg", folder / "inner" / "*.png", folder / "00.jpg")
    assert paths[0] == paths[-1] and len(paths) == 4  # named twice: twice
    assert data[0] == contents[0]


def test_a_list_is_seen_from_its_folder(folder, files, contents):
    lines = [os.fsencode(path.relative_to(folder)) for path in files]
    (folder / "list.txt").write_bytes(b"\r\n".join(lines) + b"\n\n")
    assert read(folder / "list.txt")[1] == contents
    (folder / "list.txt").write_text("not there.jpg\n")
    (item,) = Listing([str(folder / "list.txt")]).items()
    with pytest.raises(InputError, match="There is no"):
        Reader().read(item)


@pytest.mark.parametrize("sign", ["::", "?"])
def test_names_of_local_files_may_look_like_addresses(files, contents, tmp_path, monkeypatch, sign):
    """Named from the folder they are in, listed, found in a folder, and read from another folder."""
    monkeypatch.chdir(tmp_path)
    name, listed = f"x{sign}y.jpg", f"l{sign}m.txt"
    place = Path(f"f{sign}g")
    place.mkdir()
    for path in (Path(name), place / "in.jpg", place / name):
        path.write_bytes(contents[0])
    for path in (Path(listed), place / "list.txt"):
        path.write_text(f"{name}\n" + ("in.jpg\n" if path.parent == place else ""))
    table = Path(f"t{sign}u.parquet")
    pq.write_table(pa.table({"path": [name]}), table.absolute())
    shard = Path(f"s{sign}t.tar")
    with tarfile.open(shard, "w") as archive:
        archive.add(files[0], "0.jpg")
    inputs = [name, listed, place, place / "list.txt", table, shard]
    items = [item for one in inputs for item in Listing([os.fspath(one)]).items()]
    assert [item.path for item in items[:2]] == [name, name] and len(items) == 8
    assert {item.path for item in items[2:6]} == {os.fspath(place / "in.jpg"), os.fspath(place / name)}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    reader = Reader()
    assert [reader.read(item) for item in items] == [contents[0]] * 8


class Remote(fsspec.AbstractFileSystem):
    """Files that fail as often as they are told to."""

    protocol = "failing"
    cachable = False
    errors: ClassVar[dict[str, list[Exception | None]]] = {}
    content: ClassVar[bytes] = b"content"
    opened: ClassVar[list[str]] = []

    def _open(self, path, mode="rb", **_):
        self.opened.append(path)
        waiting = self.errors.get(path, [])
        error = waiting.pop(0) if waiting else None
        if error is not None:
            raise error
        return io.BytesIO(self.content)


@pytest.fixture
def remote(monkeypatch):
    """Its pauses are written down and not made."""
    fsspec.register_implementation("failing", Remote, clobber=True)
    monkeypatch.setattr(Remote, "errors", {})
    monkeypatch.setattr(Remote, "opened", [])
    pauses: list[float] = []
    monkeypatch.setattr("cast_sdk.runtime.bulk.reader.time.sleep", pauses.append)
    return pauses


def test_a_network_may_fail_twice(remote):
    Remote.errors["a.jpg"] = [TimeoutError("late"), ConnectionResetError("gone")]
    assert Reader().read(Item("failing://a.jpg", "failing://a.jpg")) == b"content"
    assert remote == [1, 2] and Remote.opened == ["a.jpg"] * 3
    Remote.errors["b.jpg"] = [TimeoutError("late")] * 9
    with pytest.raises(InputError, match=r"(?s)cannot be read.*Remedy"):
        Reader().read(Item("failing://b.jpg", "failing://b.jpg"))
    assert remote == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "error, said",
    [(FileNotFoundError(), "no file"), (PermissionError(13, "Forbidden"), "Forbidden"), (None, "more than 0 MiB")],
)
def test_what_will_fail_again_is_not_tried_again(remote, monkeypatch, error, said):
    Remote.errors["a.jpg"] = [error] * 9
    monkeypatch.setattr("cast_sdk.runtime.bulk.reader.MAX_BYTES", 3)  # of 7
    with pytest.raises(InputError, match=rf"(?s){said}.*Remedy"):
        Reader().read(Item("failing://a.jpg", "failing://a.jpg"))
    assert remote == [] and Remote.opened == ["a.jpg"]


def test_a_shard_that_the_network_cut_short_is_opened_again(remote):
    shard = Item("tar://a.jpg::failing://s.tar", "failing://s.tar", "tar", 3, 6)  # 4 bytes are there
    with pytest.raises(InputError, match=r"(?s)shard of .* ends before.*4 of 6 bytes.*Remedy"):
        Reader().read(shard)
    assert remote == [1, 2] and Remote.opened == ["s.tar"] * 3


def test_tar_shards(folder, files, contents, tmp_path):
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as archive:
        for number, path in enumerate(files):
            archive.add(path, f"{number:03}{path.suffix}")
            text = b"{}"
            info = tarfile.TarInfo(f"{number:03}.json")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    paths, data = read(shard)
    assert data == contents
    with fsspec.open(paths[3]) as file:  # the name in the data set opens the image
        assert file.read() == contents[3]
    packed = tmp_path / "s.tar.gz"
    packed.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(InputError, match="is packed"):
        read(packed)
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(InputError):
        read(shard)


@pytest.mark.parametrize("kind", ["bytes", "struct", "paths"])
def test_parquet(folder, files, contents, tmp_path, kind):
    values = {
        "bytes": lambda: {"image": pa.array(contents)},
        "struct": lambda: {"image": pa.array([{"bytes": one, "path": None} for one in contents])},
        "paths": lambda: {"path": [str(path.relative_to(folder)) for path in files]},
    }[kind]()
    table = folder / "table.parquet"
    pq.write_table(pa.table({**values, "label": list(range(len(files)))}), table, row_group_size=5)
    assert read(table)[1] == contents
    items = list(Listing([str(table)]).items())
    reader = Reader()
    assert [reader.read(items[n]) for n in (7, 3, 3, 11, 8)] == [contents[n] for n in (7, 3, 3, 11, 8)]


def test_the_column_is_never_guessed(files, contents, tmp_path):
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"left": contents, "right": contents, "n": list(range(len(files)))}), table)
    with pytest.raises(InputError, match="not clear which column") as caught:
        read(table)
    assert "--column left or right" in str(caught.value)
    assert read(table, column="right")[1] == contents
    with pytest.raises(InputError, match="no column 'n'"):
        read(table, column="n")


def test_addresses(folder, files, contents, tmp_path):
    memory = fsspec.filesystem("memory")
    for path, data in zip(files, contents, strict=True):
        memory.pipe(f"/bulk/{path.relative_to(folder)}", data)
    memory.pipe("/bulk/notes.md", b"words")
    try:
        listing = Listing(["memory://bulk"])
        names = [item.path for item in listing.items()]
        assert names[0] == "memory:///bulk/00.jpg" and "notes" not in "".join(names) and len(names) == 12
        assert listing.left_out
        assert sorted(read("memory://bulk")[1]) == sorted(contents)
        assert read("memory://bulk/inner/*.png")[1] == [
            path.read_bytes() for path in sorted(folder.rglob("inner/*.png"))
        ]
        assert read("memory://bulk/00.jpg")[1] == contents[:1]
        zipped = tmp_path / "all.zip"
        import zipfile

        with zipfile.ZipFile(zipped, "w") as archive:
            for path in files:
                archive.write(path, f"in/{path.name}")
        paths, data = read(f"zip://in::{zipped}")
        assert sorted(data) == sorted(contents)
        with fsspec.open(paths[0]) as file:
            assert file.read() == data[0]
    finally:
        memory.rm("/bulk", recursive=True)


@pytest.mark.parametrize(
    "name, said",
    [
        ("nowhere", "no file or folder"),
        ("none*.jpg", "Nothing matches"),
        ("", "no name of a file"),
        ("gopher://x/y.jpg", "fsspec cannot open"),
        ("https://me:word@host/a.jpg", "holds a password"),
    ],
)
def test_what_is_refused(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        read(name)
    assert "word@" not in str(caught.value)


def test_an_address_whose_package_is_missing(monkeypatch):
    def lacking(address, **options):
        raise ImportError("HTTPFileSystem requires aiohttp to be installed")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    with pytest.raises(InputError, match=r"lacks a package(.|\n)*requires aiohttp(.|\n)*pip install"):
        read("http://127.0.0.1:9/a.jpg")


def test_a_folder_without_images(tmp_path):
    (tmp_path / "a.md").write_text("words")
    with pytest.raises(InputError, match="no images") as caught:
        read(tmp_path)
    assert "a.md" in str(caught.value)
    odd = tmp_path / "table.csv"
    odd.write_text("words")
    with pytest.raises(InputError, match="neither an image nor a list"):
        read(odd)
