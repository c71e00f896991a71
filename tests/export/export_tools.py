"""Small versions of every family, and what the export tests share."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from golden_tools import draw_weights

from cast_sdk import bundled
from cast_sdk.export.lowering.lower import lower
from cast_sdk.export.lowering.options import GraphOptions, graph_options
from cast_sdk.export.verification.photos import Inputs, read_inputs
from cast_sdk.models import create_model
from cast_sdk.spec import ModelSpec, SuperpixelSettings
from cast_sdk.taxonomy import TaxonomyLevel

SIZES = {"embed_dim": 48, "depths": (1, 1, 1, 1), "clusters": (12, 8, 4, 2), "num_classes": 10}
DENSE = {**SIZES, "image_size": 128, "superpixels": SuperpixelSettings(64, bins=5, iterations=5)}
TREE = (
    TaxonomyLevel("species", 6, 2, ("crow", "jay", "gull", "tern", "trout", "carp")),
    TaxonomyLevel("family", 3, 3, ("corvids", "seabirds", "fishes"), (0, 0, 1, 1, 2, 2)),
    TaxonomyLevel("class", 2, 4, ("bird", "fish"), (0, 0, 0, 0, 1, 1)),
)
HEADS = {key: value for key, value in SIZES.items() if key != "num_classes"} | {"taxonomy": TREE}
SMALL = {
    "cast_small": ("cast_small", SIZES),
    "cast_deit_small with a taxonomy": ("cast_deit_small", HEADS),
    "cast_deit_small": ("cast_deit_small", SIZES),
    "cast_seg_small": ("cast_seg_small", SIZES),
    "cast_seg_small segmentation": ("cast_seg_small", {**DENSE, "stage": "segmentation", "num_classes": 0}),
    "cast_seg_deit_small": ("cast_seg_deit_small", {**DENSE, "position_grid": 12}),
    "segmenter_cast_small": ("segmenter_cast_small", {**DENSE, "position_grid": 12, "decoder_layers": 1}),
    "spml_cast_small": ("spml_cast_small", DENSE),
    "tome_small": ("tome_small", {"embed_dim": 48, "depths": (3,), "num_classes": 10}),
    "vit_small": ("vit_small", {"embed_dim": 48, "depths": (2,), "num_classes": 10}),
    "vit_conv_small": ("vit_conv_small", {"embed_dim": 48, "depths": (2,), "num_classes": 10}),
}


@cache
def small_model(name: str) -> torch.nn.Module:
    """A small model with weights that look trained, in evaluation mode. Not to be changed."""
    registered, overrides = SMALL[name]
    model = create_model(registered, **overrides)
    draw_weights(model)
    return model.eval()


@cache
def photo_inputs(spec: ModelSpec, height: int, width: int, count: int = 8) -> Inputs:
    return read_inputs(spec, (height, width), bundled.photos()[:count])


def lowered_small(name: str, **options) -> tuple[torch.nn.Module, ModelSpec, GraphOptions]:
    model = small_model(name)
    spec, options = graph_options(model.spec, **options)
    return lower(model, options, spec), spec, options


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def assert_near(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Largest difference relative to the largest magnitude."""
    assert found.shape == expected.shape
    error = (found - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"relative error {error:.1e}"
