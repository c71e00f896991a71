"""The record beside every engine, `<name>.engine.json`: what the plan is, and where it may be loaded.

TensorRT has no check of its own before deserialising, and its refusals are a version tag and a null pointer. So the
record is compared with the machine first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cast_sdk._version import __version__
from cast_sdk.artifact import ExportInfo
from cast_sdk.descriptions import build
from cast_sdk.errors import ArtifactError
from cast_sdk.runtime.engine.api import Flavor, TensorRT, current_platform, version_tuple
from cast_sdk.runtime.engine.cuda import Gpu
from cast_sdk.runtime.engine.request import BuildRequest
from cast_sdk.spec import ModelSpec
from cast_sdk.system.files import atomic_write, sha256

SCHEMA_VERSION = 1
_RANGES = {"plan_bytes": (0, 2**50), "targets[]": (0, 1000)}


@dataclass(frozen=True)
class EngineInfo:
    """What is known about one built engine.

    Attributes:
        spec: the model's description.
        info: static shapes, outputs and precision of the graph.
        flavor: "tensorrt" or "rtx"; `version` is that package's.
        targets: compute capabilities it was built for, e.g. ("sm86", "sm89").
        gpu: name of the GPU that built it; None: built without one.
        platform: e.g. "linux-x86_64".
        plan_sha256, plan_bytes: of the `.engine` file; onnx_sha256, onnx_name: of the graph it was built from.
        readback: how the precision of the built engine was found, see `precision.Readback`.
        build: options and seconds of the build.
        parity: measured against ONNX Runtime; {"ran": False, "reason": ...} when the engine was not run.
    """

    spec: ModelSpec
    info: ExportInfo
    flavor: Flavor
    version: str
    targets: tuple[str, ...]
    gpu: str | None
    platform: str
    plan_sha256: str
    plan_bytes: int
    onnx_sha256: str
    onnx_name: str
    readback: dict[str, Any] = field(default_factory=dict)
    version_compatible: bool = False
    hardware_compatible: bool = False
    build: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    created_by: str = f"cast_sdk {__version__}"

    @property
    def precision(self) -> str:
        """ "fp32", "fp16" or "int8"."""
        return self.info.precision

    @property
    def package(self) -> str:
        """For example "TensorRT-RTX 1.7.1.116"."""
        return f"{'TensorRT-RTX' if self.flavor == 'rtx' else 'TensorRT'} {self.version}"

    def request(self, engine: str | os.PathLike[str]) -> BuildRequest:
        """The build that gives this engine again."""
        return BuildRequest(
            onnx=Path(self.onnx_name),
            engine=Path(engine),
            flavor=self.flavor,
            targets=self.targets if self.flavor == "rtx" else ("current",),
            batch=self.info.batch if self.info.batch != 1 else None,
            workspace_mb=self.build.get("workspace_mb"),
            version_compatible=self.version_compatible,
            hardware_compatible=self.hardware_compatible,
        )

    def rebuild(self, engine: str | os.PathLike[str], *, targets: tuple[str, ...] | None = None) -> str:
        """The command that builds this engine again, or for other targets, and the graph that it takes."""
        request = self.request(engine)
        command = dataclasses.replace(request, targets=targets or request.targets).command()
        return f"{command}  ({self.onnx_name} has SHA-256 {self.onnx_sha256[:12]}...)"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self), "spec": self.spec.to_dict()}


def sidecar_path(engine: str | os.PathLike[str]) -> Path:
    """`cast_s.engine` -> `cast_s.engine.json`."""
    return Path(f"{os.fspath(engine)}.json")


def write_sidecar(engine: str | os.PathLike[str], record: EngineInfo) -> None:
    """Write the record beside its engine, atomically."""
    data = record.to_dict()
    data["record_sha256"] = _digest(data)
    with atomic_write(sidecar_path(engine)) as temporary:
        temporary.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


def find_sidecar(engine: str | os.PathLike[str]) -> Path:
    """The file that holds the record of an engine.

    Raises:
        ArtifactError: when there is none.
    """
    path = sidecar_path(engine)
    if not path.is_file():
        raise ArtifactError(f"The record {path.name} is missing beside {engine}.", remedy=_again(path))
    return path


def read_sidecar(engine: str | os.PathLike[str]) -> EngineInfo:
    """The record of an engine.

    Raises:
        ArtifactError: when it is missing, damaged, edited or of another schema.
    """
    path = find_sidecar(engine)
    again = _again(path)
    try:
        data = json.loads(path.read_text())
        if not isinstance(data, dict):
            raise ValueError(f"JSON of type {type(data).__name__}")
        schema = data.pop("schema_version", None)
        if schema != SCHEMA_VERSION:
            raise ArtifactError(
                f"{path.name} has schema {schema}; this version of cast_sdk reads schema {SCHEMA_VERSION}.",
                remedy="upgrade cast-sdk, or build the engine again with this version",
            )
        claimed = data.pop("record_sha256", None)
        if claimed != _digest({"schema_version": schema, **data}):
            raise ArtifactError(f"{path.name} was edited: its content does not fit its own digest.", remedy=again)
        data["spec"] = ModelSpec.from_dict(data["spec"])
        data["info"] = ExportInfo.from_json(json.dumps(data["info"]))
        return build(EngineInfo, data, f"the engine's record {path}", _RANGES, remedy=again)
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ArtifactError(f"The engine's record {path} cannot be read.", found=str(error), remedy=again) from error


def read_record(engine: str | os.PathLike[str]) -> EngineInfo:
    """The record of an engine, when its plan is the file that was built.

    Raises:
        ArtifactError: see `read_sidecar` and `check_plan`.
    """
    record = read_sidecar(engine)
    check_plan(engine, record)
    return record


def _again(sidecar: Path) -> str:
    return f"copy {sidecar.name} together with the engine, or build it again: cast-export --onnx MODEL.onnx --trt"


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_plan(engine: str | os.PathLike[str], record: EngineInfo) -> None:
    """Check that the plan is the file that was built.

    Raises:
        ArtifactError: for another size or digest.
    """
    size = Path(engine).stat().st_size
    remedy = f"copy the engine again, or rebuild it: {record.rebuild(engine)}"
    if size != record.plan_bytes:
        raise ArtifactError(
            f"The engine {engine} has {size} bytes, not {record.plan_bytes}"
            + (": it is truncated." if size < record.plan_bytes else "."),
            remedy=remedy,
        )
    found = sha256(engine)
    if found != record.plan_sha256:
        raise ArtifactError(
            f"The engine {engine} is damaged, or another one than its record describes.",
            found=f"SHA-256 {found[:16]}... and not {record.plan_sha256[:16]}...",
            remedy=remedy,
        )


def check_package(engine: str | os.PathLike[str], record: EngineInfo, trt: TensorRT) -> None:
    """Check that the installed TensorRT can load a plan of this version.

    Raises:
        ArtifactError: naming both versions and where the loaded package lies.
    """
    needs = f"This engine was built by {record.package} and needs"
    found = f"{trt.name} in {trt.location}"
    remedy = f"rebuild it here: {record.rebuild(engine)}"
    if record.flavor != trt.flavor:
        raise ArtifactError(f"{needs} that package.", found=found, remedy=remedy)
    if trt.lean and not record.version_compatible:
        raise ArtifactError(
            f"The lean runtime cannot load {engine}: it was built without --version-compatible.",
            remedy=f"install the full tensorrt {record.version}, or rebuild with --version-compatible",
        )
    if not record.version_compatible:
        if record.version != trt.version:
            raise ArtifactError(
                f"{needs} exactly that version.",
                found=found,
                remedy=f"{remedy}; or pip install '{trt.module.__name__}=={record.version}'",
            )
        return
    built, here = version_tuple(record.version), version_tuple(trt.version)
    if here < built or here[0] > built[0] + 1:
        raise ArtifactError(
            f"{needs} that version or a later one, at most one major version later.", found=found, remedy=remedy
        )


def check_device(engine: str | os.PathLike[str], record: EngineInfo, gpu: Gpu) -> None:
    """Check that this GPU and operating system can run the engine.

    Another GPU model of the same compute capability gives a warning: TensorRT allows it and may be slower there.

    Raises:
        ArtifactError: naming both GPUs and the command that rebuilds.
    """
    remedy = f"rebuild it here: {record.rebuild(engine, targets=('current',))}"
    here = current_platform()
    if record.flavor == "tensorrt" and record.platform != here:
        raise ArtifactError(f"This engine was built for {record.platform}, not for {here}.", remedy=remedy)
    if record.hardware_compatible and gpu.compute_capability >= (8, 0):
        return
    if gpu.target not in record.targets:
        built_on = f" on {record.gpu}" if record.gpu else ""
        raise ArtifactError(
            f"This engine was built{built_on} for {', '.join(record.targets)}.",
            found=f"{gpu.name} ({gpu.target})",
            remedy=remedy,
        )
    if record.flavor == "tensorrt" and record.gpu not in (None, gpu.name):
        warnings.warn(
            f"{engine} was built on {record.gpu} and runs on {gpu.name} of the same compute capability: "
            f"it may be slower than one built here ({record.rebuild(engine)})",
            RuntimeWarning,
            stacklevel=3,
        )
