"""What a file is: ONNX graph, engine or checkpoint, as plain data and as text."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cast_sdk.artifact import from_metadata
from cast_sdk.errors import ArtifactError
from cast_sdk.runtime.backends.base import check_file

_REPORT = ("images", "reference", "runtime", "checks", "passed")  # keys of a Report, shown as its table


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Everything a file says about itself, and what can be counted in it.

    Raises:
        ArtifactError, CheckpointError: for a file that is missing, damaged or foreign.
    """
    file = check_file(path)
    size = {"file": str(file), "megabytes": round(file.stat().st_size / 1e6, 2)}
    if file.suffix == ".onnx":
        return size | _onnx(file)
    if file.suffix in (".engine", ".plan"):
        return size | _engine(file)
    from cast_sdk.models.checkpoints.loading import describe

    return {**size, "format": "checkpoint", **json.loads(describe(file))}


def text(found: dict[str, Any]) -> str:
    """For people."""
    spec = found.get("spec", {})
    lines = [f"{found['file']}: {found['format']}, {found['megabytes']} MB"]
    if spec:
        lines += ["", "model", *_fields(_model(spec))]
    if "info" in found:
        info = dict(found["info"])
        verification = info.pop("verification", {})
        info["batch"] = "any" if info.get("batch") is None else info["batch"]
        lines += ["", "graph", *_fields(info)]
        lines += ["", "inputs and outputs", *_fields(found["values"])]
        lines += ["", "operators", f"  {_operators(found['operators'])}"]
        lines += ["", "verification", *_report(verification)]
    if "engine" in found:
        engine = dict(found["engine"])
        parity = engine.pop("parity", {})
        measured = {key: value for key, value in parity.items() if key not in _REPORT}
        table = _report(parity) if "checks" in parity else []
        lines += ["", "engine", *_fields(engine), "", "parity", *_fields(measured), *table]
    for key in ("kind", "tensors", "numbers"):
        if key in found:
            lines.append(f"  {key:<18} {found[key]}")
    return "\n".join(lines)


def _onnx(file: Path) -> dict[str, Any]:
    import onnx
    from google.protobuf.message import DecodeError

    from cast_sdk.export.graph import operators

    try:
        model = onnx.load(os.fspath(file))
    except DecodeError as error:
        raise ArtifactError(
            f"{file} is not a complete ONNX graph.", found=str(error), remedy="copy or export the file again"
        ) from error
    spec, info = from_metadata({entry.key: entry.value for entry in model.metadata_props}, file)
    values = {}
    for value in [*model.graph.input, *model.graph.output]:
        tensor = value.type.tensor_type
        shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        values[value.name] = f"{onnx.TensorProto.DataType.Name(tensor.elem_type).lower()} {shape}"
    return {
        "format": f"ONNX, opset {info.opset}, {info.precision}",
        "spec": spec.to_dict(),
        "info": json.loads(info.to_json()),
        "values": values,
        "operators": dict(operators(model).most_common()),
    }


def _engine(file: Path) -> dict[str, Any]:
    from cast_sdk.runtime.engine.record import read_record

    record = json.loads(json.dumps(read_record(file).to_dict()))
    return {"format": "TensorRT engine", "spec": record.pop("spec"), "engine": record}


def _model(spec: dict[str, Any]) -> dict[str, Any]:
    names = spec.get("class_names", [])
    hidden = ("class_names", "palette", "schema_version", "taxonomy")
    shown = {key: value for key, value in spec.items() if key not in hidden}
    if spec.get("taxonomy"):
        shown["taxonomy"] = ", ".join(
            f"{level['name']} {level['num_classes']} (stage {level['stage']})" for level in spec["taxonomy"]
        )
    return {key: value for key, value in shown.items() if value not in ("", [], None)} | (
        {"class_names": f"{len(names)}, from {names[0]!r} to {names[-1]!r}"} if names else {}
    )


def _fields(values: dict[str, Any]) -> list[str]:
    return [f"  {key:<18} {_short(value)}" for key, value in values.items() if value != ""]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(_short(item) for item in value)
    return str(value)


def _operators(counts: dict[str, int]) -> str:
    return f"{sum(counts.values())}: " + ", ".join(f"{name} {count}" for name, count in counts.items())


def _report(record: dict[str, Any]) -> list[str]:
    if not record:
        return ["  not verified"]
    from cast_sdk.export.verification.report import Report

    return [f"  {line}" for line in Report.from_dict(record).table().splitlines()]
