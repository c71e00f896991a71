"""The columns of a data set, version by version, and the way from a result to a row and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cast_sdk.errors import ArtifactError, InputError
from cast_sdk.hierarchy import Hierarchy
from cast_sdk.runtime.bulk.groups import GROUPS
from cast_sdk.runtime.output import rle
from cast_sdk.runtime.output.serialise import path_entries
from cast_sdk.runtime.preprocess import Fit, fit_geometry

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation
    from cast_sdk.runtime.runtime import Runtime

SCHEMA_VERSION = 1
KEY = b"cast_sdk"  # of the schema's metadata


def _list(kind: pa.DataType, size: int = -1) -> pa.DataType:
    return pa.list_(pa.field("element", kind), size)  # the name that Parquet gives it


_INTS = _list(pa.int32())
_ALWAYS = [
    pa.field("index", pa.int64(), nullable=False),
    pa.field("path", pa.string(), nullable=False),
    pa.field("sha256", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("error", pa.string()),
]
_CLASS = [
    pa.field("class_id", pa.int32()),
    pa.field("class", pa.string()),
    pa.field("probability", pa.float32()),
    pa.field("unsure", pa.bool_()),
]
_CLASS_PATH = pa.field(
    "class_path",
    _list(
        pa.struct(
            [("level", pa.string()), ("class_id", pa.int32()), ("name", pa.string()), ("probability", pa.float32())]
        )
    ),
)


@dataclass(frozen=True)
class Layout:
    """What a row holds, and what is needed to read it. Plain data: JSON in and out.

    Attributes:
        model: name of the model.
        model_sha256: digest of its file.
        size: (height, width) of the model's input in pixels.
        fit: how a frame becomes that, see `Runtime`.
        groups: of `GROUPS`, what is written.
        embedding: its length; 0: none is written.
        superpixels, semantic, tokens, class_path: whether these are written.
        token_widths: length of a token by level, where tokens are written.
        schema_version: of the columns.
    """

    model: str
    model_sha256: str
    size: tuple[int, int]
    fit: Fit
    groups: tuple[str, ...]
    embedding: int = 0
    superpixels: bool = False
    semantic: bool = False
    class_path: bool = False
    token_widths: tuple[int, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def of(cls, runtime: Runtime, model_sha256: str, groups: Sequence[str], *, tokens: bool) -> Layout:
        """The layout of a model's rows. Runs the model once.

        Raises:
            InputError: tokens are asked for, and the model does not give them.
        """
        spec = runtime.spec
        trial = runtime.segment(np.zeros((64, 64, 3), np.uint8))
        widths: tuple[int, ...] = ()
        if tokens:
            names = [f"tokens{number}" for number in range(1, trial.num_levels + 1)]
            if not names or not all(name in trial.outputs for name in names):
                raise InputError(
                    f"{spec.name} does not give the tokens of its levels.",
                    found=f"outputs {', '.join(trial.outputs)}",
                    remedy="export it with them: cast-export --tokens",
                )
            widths = tuple(int(trial.outputs[name].shape[-1]) for name in names)
        levels = "levels" in groups and trial.hierarchy is not None
        return cls(
            model=spec.name,
            model_sha256=model_sha256,
            size=(runtime.info.height, runtime.info.width),
            fit=runtime.fit,
            groups=tuple(name for name in GROUPS if name in groups),
            embedding=len(trial.embedding) if "embedding" in groups else 0,
            superpixels=levels,
            semantic=levels and trial.semantic is not None,
            class_path="class" in groups and bool(spec.taxonomy),
            token_widths=widths,
        )

    @classmethod
    def from_schema(cls, schema: pa.Schema) -> Layout:
        """The layout that a part was written with.

        Raises:
            ArtifactError: no part of such a data set, or one of a later version.
        """
        try:
            data = json.loads((schema.metadata or {})[KEY])
            version = int(data["schema_version"])
            if version > SCHEMA_VERSION:
                raise ArtifactError(
                    f"The data set has the schema version {version}; this version of cast_sdk reads {SCHEMA_VERSION}.",
                    remedy="use a newer cast_sdk",
                )
            lists = {name: tuple(data[name]) for name in ("size", "groups", "token_widths")}
            return cls(**{**data, **lists})
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                "These are no columns that cast-bulk wrote.",
                found=str(error),
                remedy="give the schema of a part: pq.read_schema('data/part-000000.parquet')",
            ) from error

    def schema(self) -> pa.Schema:
        """The columns."""
        fields = list(_ALWAYS)
        if "class" in self.groups:
            fields += _CLASS + ([_CLASS_PATH] if self.class_path else [])
        if self.embedding:
            fields.append(pa.field("embedding", _list(pa.float32(), self.embedding)))
        if self.superpixels:
            fields += [pa.field("superpixel_labels", _INTS), pa.field("superpixel_lengths", _INTS)]
            fields.append(pa.field("levels", _list(_INTS)))
        if self.semantic:
            fields.append(pa.field("semantic", _INTS))
        for level, width in enumerate(self.token_widths):
            fields.append(pa.field(f"tokens{level}", _list(_list(pa.float32(), width))))
        return pa.schema(fields, metadata={KEY: json.dumps(asdict(self), sort_keys=True).encode()})

    def row(self, result: Segmentation) -> dict[str, Any]:
        """The columns that a result fills."""
        height, width = result.size
        row: dict[str, Any] = {"width": width, "height": height}
        if "class" in self.groups:
            for number, name, probability in result.top(1):
                row.update({"class_id": number, "class": name, "probability": probability, "unsure": result.unsure})
        if self.class_path:
            row["class_path"] = path_entries(result.path())
        if self.embedding:
            row["embedding"] = result.embedding
        hierarchy = result.hierarchy
        if hierarchy is not None and self.superpixels:
            labels, lengths = rle.runs(hierarchy.superpixels)
            row["superpixel_labels"], row["superpixel_lengths"] = labels, lengths.astype(np.int32)
            row["levels"] = list(hierarchy.members[1:])
            if self.semantic:
                row["semantic"] = result.outputs["semantic"][hierarchy.ids[0]].astype(np.int32)
        if hierarchy is not None:
            for level in range(len(self.token_widths)):
                row[f"tokens{level}"] = list(result.tokens(level))
        return row

    def hierarchy(self, row: Mapping[str, Any]) -> Hierarchy:
        """The segments of a row at the model's size. A row is what `Table.to_pylist` gives, or arrays by name.

        Raises:
            InputError: the row has no segments: an image that failed, or columns that were left out.
        """
        labels, lengths, levels = (row.get(name) for name in ("superpixel_labels", "superpixel_lengths", "levels"))
        if labels is None or lengths is None or levels is None:
            raise InputError(
                "The row has no segments.",
                found=row.get("error"),
                remedy="pass over rows with an error; if all are so, leave out --only, or add --only levels",
            )
        superpixels = from_runs(np.asarray(labels, np.int32), np.asarray(lengths, np.int32), self.size)
        return Hierarchy.from_labels(superpixels, [np.asarray(level, np.int32) for level in levels])

    def labels(self, row: Mapping[str, Any], level: int) -> npt.NDArray[np.int32]:
        """What `Segmentation.labels` gave for the image: int32 [height, width], -1 outside the crop."""
        return self._to_frame(row, self.hierarchy(row).labels(level))

    def semantic_map(self, row: Mapping[str, Any]) -> npt.NDArray[np.int32]:
        """What `Segmentation.semantic` gave for the image: int32 [height, width], -1 outside the crop.

        Raises:
            InputError: as `hierarchy`, or the model has no dense head.
        """
        superpixels = self.hierarchy(row).superpixels
        if row.get("semantic") is None:
            raise InputError(f"{self.model} has no dense head, so its rows hold no classes of pixels.")
        return self._to_frame(row, np.asarray(row["semantic"], np.int32)[superpixels])

    def _to_frame(self, row: Mapping[str, Any], labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        return fit_geometry((int(row["height"]), int(row["width"])), self.size, self.fit).to_frame(labels)


def batch(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Rows as one batch; a column that a row does not name is null in it, and names of files need not be UTF-8."""
    columns = [pa.array([_text(row.get(field.name)) for row in rows], type=field.type) for field in schema]
    return pa.record_batch(columns, schema=schema)


def _text(value: Any) -> Any:
    return os.fsencode(value).decode(errors="backslashreplace") if isinstance(value, str) else value


def from_runs(
    labels: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32], size: tuple[int, int]
) -> npt.NDArray[np.int32]:
    """The label map [h, w] of run lengths.

    Raises:
        InputError: when they do not fill the size.
    """
    if len(labels) != len(lengths) or (lengths < 0).any() or int(lengths.sum()) != size[0] * size[1]:
        raise InputError(
            "The run lengths of the row do not fill the model's size.",
            found=f"{int(lengths.sum())} pixels for {size[0]} x {size[1]}",
            remedy="read the row with the layout of its own part",
        )
    return np.repeat(labels, lengths).reshape(size)
