"""The torch module of a model's description."""

from __future__ import annotations

import dataclasses

from cast_sdk.models.base import Model
from cast_sdk.models.baselines import Tome, Vit
from cast_sdk.models.cast import Cast
from cast_sdk.models.dense import Segmenter, Spml
from cast_sdk.models.sampling import Sampler
from cast_sdk.spec import ModelSpec


def build(spec: ModelSpec, sampler: Sampler = "float64") -> Model:
    """The torch module of a spec, with torch's default weights."""
    if spec.family in ("vit", "vit_conv"):
        return Vit(spec)
    if spec.family == "tome":
        return Tome(spec)
    if spec.family == "segmenter":
        encoder = dataclasses.replace(spec, family="cast_seg_deit", num_classes=1000, decoder_layers=0, decoder_heads=0)
        return Segmenter(spec, encoder, sampler)
    if spec.family == "spml":
        backbone = dataclasses.replace(spec, family="cast_seg", num_classes=0, classifier="none")
        return Spml(spec, backbone, sampler)
    return Cast(spec, sampler)
