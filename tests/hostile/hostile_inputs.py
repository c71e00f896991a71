"""Kinds of bad input, each a rule that makes it: files, names, numbers, arrays, JSON."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# ---------------------------------------------------------------- values

VALUES: dict[str, Any] = {
    "minus one": -1,
    "two to the 32": 2**32,
    "two to the 70": 2**70,
    "half": 1.5,
    "nan": float("nan"),
    "infinity": float("inf"),
    "text of a number": "1",
    "empty text": "",
    "surrogate": "\udcff",
    "bytes": b"1",
    "true": True,
    "list": [0],
    "mapping": {"a": 1},
    "array": np.arange(6),
    "empty array": np.zeros(0),
    "object": object(),
    "complex": 1j,
}
# The same as words on a command line.
WORDS: dict[str, str] = {
    "nothing": "",
    "minus one": "-1",
    "zero": "0",
    "two to the 70": str(2**70),
    "half": "0.5",
    "nan": "nan",
    "infinity": "inf",
    "exponent": "1e999",
    "word": "many",
    "blank": " ",
    "quote": "'\"`$(id)",
    "lines": "a\nb",
    "not ASCII": "größe.äöü",
    "surrogate": "\udcff\udcfe",
    "long": "x" * 5000,
    "option": "--help-me",
    "dots": "../../..",
    "pattern": "[*?",
}

# ---------------------------------------------------------------- files

FileMaker = Callable[[Path, bytes, random.Random], None]


def _mutated(data: bytes, rng: random.Random, count: int) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(count):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _loop(path: Path, _: bytes, __: random.Random) -> None:
    path.symlink_to(path.name)


# What stands at the path, made from the bytes of a good file.
FILES: dict[str, FileMaker] = {
    "empty": lambda p, good, rng: p.write_bytes(b"") and None,
    "one byte": lambda p, good, rng: p.write_bytes(good[:1]) and None,
    "head": lambda p, good, rng: p.write_bytes(good[: min(len(good) // 3, 4000)]) and None,
    "nearly whole": lambda p, good, rng: p.write_bytes(good[:-9]) and None,
    "without its head": lambda p, good, rng: p.write_bytes(good[64:]) and None,
    "one byte changed": lambda p, good, rng: p.write_bytes(_mutated(good[:200], rng, 1) + good[200:]) and None,
    "bytes changed": lambda p, good, rng: p.write_bytes(_mutated(good, rng, 1 + len(good) // 500)) and None,
    "zeros": lambda p, good, rng: p.write_bytes(bytes(4096)) and None,
    "noise": lambda p, good, rng: p.write_bytes(rng.randbytes(4096)) and None,
    "text": lambda p, good, rng: p.write_bytes(b"hello\n") and None,
    "not UTF-8": lambda p, good, rng: p.write_bytes(b"\xff\xfe\xfa\n" * 50) and None,
    "web page": lambda p, good, rng: p.write_bytes(b"<!doctype html><title>404</title>") and None,
    "LFS pointer": lambda p, good, rng: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n") and None,
    "zip": lambda p, good, rng: p.write_bytes(b"PK\x03\x04" + bytes(60)) and None,
    "JSON list": lambda p, good, rng: p.write_bytes(b"[1, 2]") and None,
    "folder": lambda p, good, rng: p.mkdir(),
    "missing": lambda p, good, rng: None,
    "dangling link": lambda p, good, rng: p.symlink_to("nowhere"),
    "link to itself": _loop,
    "pipe": lambda p, good, rng: os.mkfifo(p),
}
NO_BYTES = ("folder", "missing", "dangling link", "link to itself", "pipe")  # kinds that hold no bytes
# Names that no file can have, or that mean something else.
NAMES: dict[str, str] = {
    "empty": "",
    "NUL": "a\0b",
    "too long": "x" * 300,
    "not UTF-8": "\udcff\udcfe",
    "below a file": "photo.png/a",
    "dash": "-",
    "address": "http://127.0.0.1:9/a",
    "kind of address": "nothing://a",
    "pattern": "[*?].none",
    "missing folder": "no/such/folder/a",
    "device": "/dev/full",
}


def write_file(kind: str, path: Path, good: bytes, seed: int) -> Path:
    """Put a bad file of a kind where `path` says."""
    FILES[kind](path, good, random.Random(f"{kind} {seed}"))
    return path


# ---------------------------------------------------------------- JSON


def spoiled(text: str) -> Iterator[tuple[str, str]]:
    """A JSON object of one of our files with one thing wrong at a time: every field by several kinds of value."""
    data = json.loads(text)
    yield "cut", text[: len(text) // 2]
    yield "nested", "[" * 100_000
    yield "list", "[]"
    yield "null", "null"
    yield "NaN", "NaN"
    yield "unknown field", json.dumps({**data, "surprise": 1})
    for key in data:
        rest = {name: value for name, value in data.items() if name != key}
        yield f"without {key}", json.dumps(rest)
        for label, value in (
            ("minus one", -1),
            ("huge", 10**18),
            ("half", 0.5),
            ("text", "x"),
            ("list", [[]]),
            ("mapping", {"x": 1}),
            ("null", None),
            ("true", True),
        ):
            if data[key] != value:
                yield f"{key} {label}", json.dumps({**data, key: value})
        yield f"{key} not finite", json.dumps(rest)[:-1] + f', "{key}": 1e999}}'


# ---------------------------------------------------------------- arrays


def frames() -> dict[str, Any]:
    """What is no frame, or an unusual one."""
    good = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    return {
        "none": None,
        "number": 3,
        "list": [[1, 2], [3, 4]],
        "float": good.astype(np.float32) / 255,
        "nan": np.full((8, 8, 3), np.nan),
        "16 bits": good.astype(np.uint16),
        "bool": good > 9,
        "signed": good.astype(np.int8),
        "objects": good.astype(object),
        "text": good.astype(str),
        "channels first": good.transpose(2, 0, 1),
        "batch": good[None],
        "five channels": np.zeros((8, 8, 5), np.uint8),
        "no rows": good[:0],
        "no columns": good[:, :0],
        "no channels": good[..., :0],
        "one pixel": good[:1, :1],
        "one row": good[:1],
        "grey": good[..., 0],
        "backwards": good[::-1, ::-1, ::-1],
        "masked": np.ma.masked_array(good, mask=good > 9),
        "matrix": np.asmatrix(good[..., 0]),
        "read only": np.broadcast_to(good[:1, :1], good.shape),
        "zero dimensions": np.array(5, np.uint8),
        "big endian": good.astype(">u2"),
        "bytes": good.tobytes(),
    }
