"""What may be asked of an engine's build, and the command that asks for the same."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BuildRequest:
    """What is asked for; see `cast_sdk.export.build_engine` for the meaning of each field."""

    onnx: Path
    engine: Path
    flavor: str = "auto"
    precision: str | None = None
    targets: tuple[str, ...] = ("current",)
    batch: int | None = None
    workspace_mb: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    timing_cache: Path | None = None
    progress: bool = True
    device_id: int = 0  # index of the GPU that builds; a setting of this machine, so no part of `command`

    def command(self) -> str:
        """The same request as a command. Files are named without their folders: it may be run on another machine."""
        words = ["cast-export", "--onnx", self.onnx.name, "--trt", "--flavor", self.flavor, "--out", self.engine.name]
        words += ["--precision", self.precision] if self.precision else []
        words += ["--target", ",".join(self.targets)] if self.targets != ("current",) else []
        words += ["--batch", str(self.batch)] if self.batch is not None else []
        words += ["--workspace", str(self.workspace_mb)] if self.workspace_mb is not None else []
        words += ["--version-compatible"] if self.version_compatible else []
        words += ["--hardware-compatible"] if self.hardware_compatible else []
        words += ["--timing-cache", self.timing_cache.name] if self.timing_cache is not None else []
        return shlex.join(words)
