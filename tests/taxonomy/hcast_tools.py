"""Fixtures of H-CAST: models, inputs and where they lie."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np
import torch
from golden_tools import GOLDEN, draw_weights, inputs, normalised

from cast_sdk.models import create_model
from cast_sdk.taxonomy import STAGES, TaxonomyLevel

HCAST = GOLDEN / "hcast"
TINY = {"embed_dim": 48, "depths": (1, 1, 1, 1), "clusters": (24, 12, 6, 3), "image_size": 112}


def levels(counts):
    """Levels without a tree, as a checkpoint of an unknown data set has them."""
    return tuple(
        TaxonomyLevel(f"level {i}", count, stage)
        for i, (count, stage) in enumerate(zip(counts, STAGES[len(counts)], strict=True), 1)
    )


def make(meta):
    """The model of a fixture with the weights of the rule, and their checksum."""
    sizes = TINY if meta["builder"].startswith("tiny") else {}
    model = create_model("cast_deit_small", taxonomy=levels(meta["nb_classes"]), **sizes)
    crc = draw_weights(model, meta["salt"])
    return model.eval(), crc


def load(name):
    with np.load(HCAST / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays["meta"])) if "meta" in arrays else {}


@lru_cache(maxsize=1)
def hcast_inputs():
    """Label maps and small images; the images of 224 pixels are the first of `inputs.npz`."""
    with np.load(HCAST / "hcast_inputs.npz") as file:
        return {"im224": inputs()["im224"], **{key: file[key] for key in file.files}}


def batch(case, meta):
    """Normalised images and label maps of a case."""
    rows = case["image_index"]
    images = normalised(hcast_inputs()[meta["images"]][rows])
    return images, torch.from_numpy(hcast_inputs()[meta["labels"]][rows].astype(np.int64))
