"""The description in an .onnx file, read without the onnx package: a Jetson has neither it nor ONNX Runtime."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

from cast_sdk.artifact import ExportInfo, from_metadata
from cast_sdk.errors import ArtifactError
from cast_sdk.spec import ModelSpec

# onnx.proto: ModelProto.metadata_props is field 14, StringStringEntryProto has key = 1 and value = 2.
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_description(path: str | os.PathLike[str]) -> tuple[ModelSpec, ExportInfo]:
    """ModelSpec and ExportInfo of an ONNX file.

    Raises:
        ArtifactError: when the file is damaged, is not ONNX, or was not written by cast_sdk.
    """
    return from_metadata(read_metadata(path), path)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """`metadata_props` of an ONNX file. Weights are skipped, so this takes no memory and almost no time.

    Raises:
        ArtifactError: when the file is not a complete protobuf message.
    """
    metadata: dict[str, str] = {}
    size = Path(path).stat().st_size
    try:
        with Path(path).open("rb") as file:
            while file.tell() < size:
                field, wire = divmod(_varint(file), 8)
                if field == 0:
                    raise ValueError("field number 0")
                if wire == _VARINT:
                    _varint(file)
                elif wire == _BYTES:
                    length = _varint(file)
                    if file.tell() + length > size:
                        raise ValueError(f"a field of {length} bytes ends after the file")
                    if field == _METADATA_PROPS:
                        key, value = _entry(file.read(length))
                        metadata[key] = value
                    else:
                        file.seek(length, os.SEEK_CUR)
                elif wire in (_FIXED64, _FIXED32):
                    file.seek(8 if wire == _FIXED64 else 4, os.SEEK_CUR)
                else:
                    raise ValueError(f"wire type {wire}")
    except (ValueError, KeyError) as error:
        raise ArtifactError(
            f"{os.fspath(path)} is not a complete .onnx file.",
            found=str(error),
            remedy="copy the file again (it may be truncated) or export it again",
        ) from error
    return metadata


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while shift < 64:
        byte = file.read(1)
        if not byte:
            raise ValueError("the file ends inside a field")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
    raise ValueError("an integer of more than 64 bits")


def _entry(data: bytes) -> tuple[str, str]:
    fields: dict[int, str] = {}
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        tag = _varint(stream)
        fields[tag // 8] = stream.read(_varint(stream)).decode()
    return fields[_KEY], fields.get(_VALUE, "")
