"""Columns that only some models have: tokens, paths of a taxonomy, classes of pixels; read back with pyarrow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pyarrow, of the extra bulk, is not installed")

import pyarrow as pa
import pyarrow.parquet as pq

import cast_sdk
from cast_sdk.errors import InputError
from cast_sdk.runtime.bulk.schema import Layout

WIDTH = 48  # of the models' tokens


@pytest.fixture(scope="module")
def made(kinds, stock, tmp_path_factory) -> dict[str, Path]:
    """A data set of each model, with tokens."""
    folder = tmp_path_factory.mktemp("columns")
    for kind, model in kinds.items():
        words = [stock / "inner", "--out", folder / kind, "--model", model, "--tokens", "--part-rows", 4, "-q"]
        command = [sys.executable, "-m", "cast_sdk.runtime.commands.bulk", *map(str, words), "--workers", "1"]
        subprocess.run(command, check=True, timeout=240)
    return {kind: folder / kind for kind in kinds}


def pairs(folder: Path, model: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """Each row with what the runtime says of its image."""
    rows = sorted(pq.read_table(folder).to_pylist(), key=lambda row: row["index"])
    assert len(rows) == 6 and not any(row["error"] for row in rows)
    with cast_sdk.Runtime(model, threads=1) as runtime:
        for row in rows:
            yield row, runtime.segment(row["path"])


@pytest.mark.parametrize("kind", ["taxonomy", "segmenter"])
def test_tokens_are_those_of_the_segments(made, kinds, kind):
    schema = pq.read_schema(made[kind] / "part-000000.parquet")
    for level in range(4):
        vectors = schema.field(f"tokens{level}").type.value_type
        assert pa.types.is_fixed_size_list(vectors) and vectors.list_size == WIDTH
    for row, result in pairs(made[kind], kinds[kind]):
        for level in range(4):
            tokens = np.array(row[f"tokens{level}"], np.float32)
            assert tokens.shape == (result.num_segments(level), WIDTH)
            assert np.array_equal(tokens, result.features(level)["token"])


def test_the_path_of_a_taxonomy_is_the_runtimes(made, kinds):
    paths = set()
    for row, result in pairs(made["taxonomy"], kinds["taxonomy"]):
        path = row["class_path"]
        assert [one["level"] for one in path] == ["class", "family", "species"]
        for found, expected in zip(path, result.path(), strict=True):
            assert (found["class_id"], found["name"]) == (expected.class_id, expected.name)
            assert found["probability"] == pytest.approx(expected.probability, abs=1e-6)
        assert row["class"] == path[-1]["name"] == result.top(1)[0][1]
        paths.add(tuple(one["name"] for one in path))
    assert len(paths) > 1, "one path for all images would show little"


def test_the_class_map_is_the_runtimes(made, kinds):
    layout = Layout.from_schema(pq.read_schema(made["segmenter"] / "part-000000.parquet"))
    assert layout.semantic and not layout.class_path
    for row, result in pairs(made["segmenter"], kinds["segmenter"]):
        assert row["class"] is None and len(row["semantic"]) == result.num_segments(0)
        assert np.array_equal(layout.semantic_map(row), result.semantic)
        assert len(np.unique(result.semantic)) > 1
        for level in range(5):
            assert np.array_equal(layout.labels(row, level), result.labels(level))


def test_a_model_without_a_dense_head_has_no_class_map(made):
    part = made["taxonomy"] / "part-000000.parquet"
    layout = Layout.from_schema(pq.read_schema(part))
    assert "semantic" not in pq.read_schema(part).names
    with pytest.raises(InputError, match="has no dense head"):
        layout.semantic_map(pq.read_table(part).to_pylist()[0])
