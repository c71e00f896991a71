"""From a checkpoint to ONNX and TensorRT."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cast_sdk.export.engines.tensorrt import build_engine
    from cast_sdk.export.onnx_export import export_onnx

_WHERE = {"export_onnx": "cast_sdk.export.onnx_export", "build_engine": "cast_sdk.export.engines.tensorrt"}

__all__ = ["build_engine", "export_onnx"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
