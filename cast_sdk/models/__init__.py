"""CAST and its baselines in PyTorch."""

from __future__ import annotations

from cast_sdk.models.base import Model
from cast_sdk.models.building import build
from cast_sdk.models.cast import Cast, CastOutput, Level
from cast_sdk.models.checkpoints.layouts import save_official
from cast_sdk.models.checkpoints.loading import load_model, load_native
from cast_sdk.models.creation import create_model
from cast_sdk.models.moco import MoCo
from cast_sdk.models.saving import save_native
from cast_sdk.registry import list_models, model_spec

__all__ = [
    "Cast",
    "CastOutput",
    "Level",
    "MoCo",
    "Model",
    "build",
    "create_model",
    "list_models",
    "load_model",
    "load_native",
    "model_spec",
    "save_native",
    "save_official",
]
