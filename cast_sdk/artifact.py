"""What an exported file says about itself, next to its ModelSpec."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import Any

from cast_sdk.descriptions import build
from cast_sdk.errors import ArtifactError
from cast_sdk.spec import ModelSpec

SPEC_KEY = "cast_sdk"  # ONNX metadata_props: the ModelSpec as JSON
INFO_KEY = "cast_sdk_export"  # ONNX metadata_props: ExportInfo as JSON


_RANGES = {
    "batch": (1, 65536),
    "height": (1, 16384),
    "width": (1, 16384),
    "num_superpixels": (0, 2**20),
    "opset": (0, 1000),
    "outputs[]": (1, 64),
}


@dataclass(frozen=True)
class ExportInfo:
    """How a graph was made and what was measured on it.

    `num_superpixels` is S of the static shapes; `verification` is the parity table (empty: not verified).
    """

    precision: str  # "fp32", "fp16" or "int8"
    batch: int | None  # None: dynamic batch
    height: int
    width: int
    num_superpixels: int
    outputs: tuple[str, ...]
    opset: int = 0
    created_by: str = ""
    checkpoint_sha256: str = ""
    target: str = "any"  # "any", "cpu" (matrices as inputs), "onnxruntime" (u8s8 Q/DQ), "tensorrt" (s8), "torch"
    verification: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ExportInfo:
        """Rebuild a record.

        Raises:
            ArtifactError: for text that is not JSON, or fields that are unknown, missing, of another type or out of
                range.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(
                "The export record in this file is not JSON.", found=str(error), remedy="export the model again"
            ) from error
        return build(cls, data, "the export record", _RANGES, remedy="export the model again")


def from_metadata(metadata: dict[str, str], path: str | os.PathLike[str]) -> tuple[ModelSpec, ExportInfo]:
    """ModelSpec and ExportInfo from the metadata of an ONNX file.

    Raises:
        ArtifactError: when the file was not written by cast_sdk.
    """
    missing = [key for key in (SPEC_KEY, INFO_KEY) if key not in metadata]
    if missing:
        raise ArtifactError(
            f"{os.fspath(path)} does not carry cast_sdk's model description.",
            found="no metadata " + " and ".join(repr(key) for key in missing),
            remedy="export it with: cast-export --ckpt CHECKPOINT --out MODEL.onnx",
        )
    return ModelSpec.from_json(metadata[SPEC_KEY]), ExportInfo.from_json(metadata[INFO_KEY])
