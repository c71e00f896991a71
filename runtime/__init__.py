"""Run CAST: from a frame to a class, an embedding and nested segments. Needs neither torch nor onnx."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cast_sdk.runtime.result import Segmentation
    from cast_sdk.runtime.runtime import Runtime

_WHERE = {"Runtime": "cast_sdk.runtime.runtime", "Segmentation": "cast_sdk.runtime.result"}

__all__ = ["Runtime", "Segmentation"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
