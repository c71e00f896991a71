"""Train, export and run CAST: a class, an embedding and a four-level segmentation from one forward pass.

The public names load on first use: importing this package needs NumPy only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cast_sdk._version import __version__
from cast_sdk.errors import (
    ArtifactError,
    CastError,
    CheckpointError,
    CudaError,
    EngineError,
    ExportError,
    InputError,
    MissingDependencyError,
    NotFiniteError,
    RecipeError,
    StreamError,
    TooLargeError,
)

if TYPE_CHECKING:
    from cast_sdk.export import build_engine, export_onnx
    from cast_sdk.models import CastOutput, Model, create_model, load_model, save_official
    from cast_sdk.registry import list_models
    from cast_sdk.runtime import Runtime, Segmentation
    from cast_sdk.spec import ModelSpec

_WHERE = {
    "Runtime": "cast_sdk.runtime",
    "Segmentation": "cast_sdk.runtime",
    "ModelSpec": "cast_sdk.spec",
    "CastOutput": "cast_sdk.models",
    "Model": "cast_sdk.models",
    "create_model": "cast_sdk.models",
    "list_models": "cast_sdk.registry",
    "load_model": "cast_sdk.models",
    "save_official": "cast_sdk.models",
    "export_onnx": "cast_sdk.export",
    "build_engine": "cast_sdk.export",
}
_MODULES = ("bundled", "errors", "export", "hierarchy", "models", "runtime", "spec", "superpixels", "training")

__all__ = [
    "ArtifactError",
    "CastError",
    "CastOutput",
    "CheckpointError",
    "CudaError",
    "EngineError",
    "ExportError",
    "InputError",
    "MissingDependencyError",
    "Model",
    "ModelSpec",
    "NotFiniteError",
    "RecipeError",
    "Runtime",
    "Segmentation",
    "StreamError",
    "TooLargeError",
    "__version__",
    "build_engine",
    "create_model",
    "export_onnx",
    "list_models",
    "load_model",
    "save_official",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(_imported(_WHERE[name]), name)
    if name in _MODULES:
        return _imported(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == __name__:
            raise
        from cast_sdk.system.installing import explain

        raise explain(error, "export", "train", "hub") from error


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
